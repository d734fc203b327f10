# Who read what: data access logs of every service, beside those of what was changed, which are always on.

resource "google_project_iam_audit_config" "all" {
  project = var.project
  service = "allServices"

  dynamic "audit_log_config" {
    for_each = toset(["ADMIN_READ", "DATA_READ", "DATA_WRITE"])

    content {
      log_type = audit_log_config.key
    }
  }
}

# Events and audit logs are kept for longer than the project's own log buckets keep them, and under a key of ours.
resource "google_logging_project_bucket_config" "this" {
  project        = var.project
  location       = var.region
  bucket_id      = local.name
  description    = "Events of nightscore, and audit logs."
  retention_days = var.retention.logs

  cmek_settings {
    kms_key_name = module.key["logs"].id
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_logging_project_sink" "this" {
  project     = var.project
  name        = local.name
  description = "Events of nightscore, and audit logs."
  destination = "logging.googleapis.com/${google_logging_project_bucket_config.this.id}"
  filter      = "logName=\"${local.events_log}\" OR logName:\"cloudaudit.googleapis.com\""

  unique_writer_identity = true
}
