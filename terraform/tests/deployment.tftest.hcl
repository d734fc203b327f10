# What the configuration decides. Nothing is created and nobody is asked: the provider is a mock, and runs only plan.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
}

variables {
  project      = "example-scoring-dev"
  env          = "dev"
  region       = "europe-west4"
  features     = { features = {} }
  github       = { owner = "example", name = "nightscore", owner_id = "1234567", repository_id = "123456789" }
  orchestrator = {}
  package      = "0.1.0"
  alerts       = { emails = ["risk-ml@example.com"] }
}

run "the_first_apply_has_no_airflow" {
  command = plan

  variables {
    orchestrator = null
  }

  assert {
    condition     = length(google_composer_environment.this) == 0
    error_message = "Without an orchestrator there is no managed Airflow: its wheel has yet to be uploaded."
  }
  assert {
    condition     = output.composer_environment == null && output.airflow_uri == null
    error_message = "Outputs say that there is no Airflow."
  }
  assert {
    condition     = output.settings.NIGHTSCORE_BUCKET == "nightscore-dev-example-scoring-dev"
    error_message = "The settings do not wait for Airflow: Kubernetes needs them as well."
  }
}

run "airflow_is_private_and_pinned" {
  command = plan

  assert {
    condition = alltrue([
      google_composer_environment.this[0].config[0].enable_private_environment,
      google_composer_environment.this[0].config[0].enable_private_builds_only,
    ])
    error_message = "Neither Airflow nor the building of its image reaches the internet."
  }
  assert {
    condition     = google_composer_environment.this[0].config[0].software_config[0].pypi_packages["nightscore"] == "[lightgbm,onnx,xgboost]==0.1.0"
    error_message = "The wheel is installed in exactly the version that was asked for."
  }
  assert {
    condition     = google_composer_environment.this[0].config[0].software_config[0].image_version == "composer-3-airflow-3.3.1-build.0"
    error_message = "The image is pinned to its build."
  }
}

run "given_features_are_only_read" {
  command = plan

  variables {
    features = { features = { project = "example-warehouse" }, markers = {}, outcomes = { create = true, loaders = ["group:data@example.com"] } }
  }

  assert {
    condition     = keys(google_bigquery_dataset_iam_member.features) == ["markers"]
    error_message = "A grant is made on what is given in this project, and on nothing of another's."
  }
  assert {
    condition     = [for it in output.requests : it.dataset] == ["example-warehouse.features"]
    error_message = "What another project has to grant is asked for."
  }
  assert {
    condition     = keys(module.features) == ["outcomes"]
    error_message = "Only datasets that say so are created."
  }
}

run "a_multi_region_has_keys_where_its_data_is" {
  command = plan

  variables {
    data_location = "EU"
  }

  assert {
    condition     = toset(keys(google_kms_key_ring.this)) == toset(["europe", "europe-west4"])
    error_message = "BigQuery's EU is called europe by Cloud KMS; Airflow's key stays in the region."
  }
  assert {
    condition     = output.settings.NIGHTSCORE_LOCATION == "EU"
    error_message = "nightscore is told where the datasets are."
  }
}

run "private_services_have_a_range_where_one_is_given" {
  command = plan

  variables {
    network = { private_services = "10.20.16.0/20" }
  }

  assert {
    condition     = google_compute_global_address.private_services[0].prefix_length == 20 && length(google_service_networking_connection.private_services) == 1
    error_message = "The range is reserved, and the network is connected by it."
  }
}

run "no_range_and_no_connection_otherwise" {
  command = plan

  assert {
    condition     = length(google_service_networking_connection.private_services) == 0
    error_message = "A connection that nothing uses is not made."
  }
}

run "a_pipeline_that_must_publish_is_watched" {
  command = plan

  variables {
    pipelines = { credit_default = { published_by = "23:30" } }
  }

  assert {
    condition     = strcontains(google_monitoring_alert_policy.this["not published in time: credit_default"].conditions[0].condition_prometheus_query_language[0].query, "(hour() * 60 + minute() - 1410 + 1440) % 1440 < 120")
    error_message = "23:30 is minute 1410, and the two hours after it go beyond midnight."
  }
}

run "without_the_proxy_all_packages_are_ours" {
  command = plan

  variables {
    python_proxy = false
  }

  assert {
    condition     = length(module.python_proxy) == 0
    error_message = "There is no way to the public index."
  }
}

run "production_is_locked" {
  command = plan

  variables {
    env = "prod"
  }

  assert {
    condition     = length(google_resource_manager_lien.this) == 1 && google_composer_environment.this[0].deletion_policy == "PREVENT"
    error_message = "The project has a lien, and Airflow cannot be deleted."
  }
}

run "a_bucket_of_pods_needs_no_airflow" {
  command = plan

  variables {
    orchestrator                = null
    kubernetes_service_accounts = ["airflow/airflow-worker"]
  }

  assert {
    condition     = toset(google_service_account_iam_binding.this["scorer roles/iam.workloadIdentityUser"].members) == toset(["serviceAccount:example-scoring-dev.svc.id.goog[airflow/airflow-worker]"])
    error_message = "Pods act as the scorer by workload identity."
  }
}
