# Managed Service for Apache Airflow, Gen 3 (Cloud Composer): private, under a key of ours, as an account of its own.

locals {
  dags_bucket = "${local.name}-dags-${var.project}"

  airflow = {
    # Nothing runs because a file appeared: a pipeline is switched on by people.
    "core-dags_are_paused_at_creation" = "True"
    # A task's process is given back within a second instead of five, and twenty lost heartbeats end it instead of three.
    "workers-min_heartbeat_interval" = "1"
    "workers-max_failed_heartbeats"  = "20"
    # Every level of a DAG costs about one turn of the scheduler.
    "scheduler-scheduler_idle_sleep_time" = "0.2"
    "dag_processor-refresh_interval"      = "60"
    # Connections and variables may come from secrets named airflow-connections-… and airflow-variables-….
    "secrets-backend" = "airflow.providers.google.cloud.secrets.secret_manager.CloudSecretManagerBackend"
    "secrets-backend_kwargs" = jsonencode({
      project_id         = var.project
      connections_prefix = "${local.name}-airflow-connections"
      variables_prefix   = "${local.name}-airflow-variables"
      sep                = "-"
    })
  }
}

# The environment's bucket: DAGs, and Airflow's logs. Ours, so that it is there before the environment is.
module "dags" {
  source = "./modules/bucket"

  project          = var.project
  name             = local.dags_bucket
  location         = var.region
  key              = module.key["composer"].id
  protected        = var.protected
  soft_delete_days = var.retention.deleted_objects
  lifecycle_rules = [
    { action = { type = "Delete" }, condition = { age = 180, matchesPrefix = ["logs/"] } },
    { action = { type = "Delete" }, condition = { daysSinceNoncurrentTime = 90 } },
    { action = { type = "AbortIncompleteMultipartUpload" }, condition = { age = 7 } },
  ]
  iam       = local.grants.dags
  iam_where = local.grants_where.dags
}

# Where the environment's packages come from; it is read when the environment is built.
resource "google_storage_bucket_object" "pip" {
  bucket       = module.dags.name
  name         = "config/pip/pip.conf"
  content_type = "text/plain"
  content      = <<-EOT
    [global]
    index-url = https://${var.region}-python.pkg.dev/${var.project}/${local.name}-packages/simple/
  EOT
}

resource "google_composer_environment" "this" {
  count = var.orchestrator == null ? 0 : 1

  project         = var.project
  name            = local.name
  region          = var.region
  deletion_policy = var.protected ? "PREVENT" : "DELETE"

  storage_config {
    bucket = module.dags.name
  }

  config {
    environment_size           = "ENVIRONMENT_SIZE_${var.orchestrator.size}"
    resilience_mode            = var.orchestrator.resilient ? "HIGH_RESILIENCE" : "STANDARD_RESILIENCE"
    enable_private_environment = true # no way to the internet
    enable_private_builds_only = true # neither while packages are installed

    software_config {
      image_version            = var.orchestrator.image
      airflow_config_overrides = local.airflow
      env_variables            = local.orchestrator_settings
      pypi_packages            = { nightscore = "[${join(",", var.orchestrator.extras)}]==${var.package}" }

      cloud_data_lineage_integration { # lineage goes where docs/observability.md says, and nowhere by default
        enabled = false
      }
    }

    node_config {
      network         = google_compute_network.this.id
      subnetwork      = google_compute_subnetwork.this.id
      service_account = google_service_account.this["orchestrator"].email
    }

    encryption_config {
      kms_key_name = module.key["composer"].id
    }

    workloads_config {
      scheduler {
        count      = var.orchestrator.resilient ? 2 : 1
        cpu        = 1
        memory_gb  = 4
        storage_gb = 1
      }
      dag_processor {
        count      = var.orchestrator.resilient ? 2 : 1
        cpu        = 1
        memory_gb  = 4
        storage_gb = 1
      }
      triggerer {
        count     = var.orchestrator.resilient ? 2 : 1
        cpu       = 0.5
        memory_gb = 1
      }
      web_server {
        cpu        = 1
        memory_gb  = 4
        storage_gb = 1
      }
      worker {
        cpu        = var.orchestrator.workers.cpu
        memory_gb  = var.orchestrator.workers.memory_gb
        storage_gb = 10
        min_count  = var.orchestrator.workers.min
        max_count  = var.orchestrator.workers.max
      }
    }

    # Named ranges only; without any, nobody reaches Airflow's pages but from inside Google.
    web_server_network_access_control {
      dynamic "allowed_ip_range" {
        for_each = var.orchestrator.web_access

        content {
          description = allowed_ip_range.key
          value       = allowed_ip_range.value
        }
      }
    }

    maintenance_window { # twelve hours a week are the least; by day, and nights are left alone
      start_time = "2026-01-03T10:00:00Z"
      end_time   = "2026-01-03T18:00:00Z"
      recurrence = "FREQ=WEEKLY;BYDAY=SA,SU"
    }

    recovery_config {
      scheduled_snapshots_config {
        enabled                    = true
        snapshot_location          = "gs://${module.dags.name}/snapshots"
        snapshot_creation_schedule = "0 12 * * *"
        time_zone                  = "UTC"
      }
    }

    data_retention_config {
      airflow_metadata_retention_config {
        retention_mode = "RETENTION_MODE_ENABLED"
        retention_days = 90
      }
      task_logs_retention_config {
        storage_mode = "CLOUD_LOGGING_AND_CLOUD_STORAGE"
      }
    }
  }

  lifecycle {
    prevent_destroy = true
  }

  timeouts {
    create = "120m"
    update = "120m"
    delete = "60m"
  }

  depends_on = [
    google_dns_record_set.google_address,
    google_dns_record_set.google_names,
    google_project_iam_member.this,
    google_service_account_iam_binding.this,
    google_storage_bucket_object.pip,
    module.packages,
  ]
}
