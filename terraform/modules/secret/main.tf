# A secret without its value, which a human adds, and who may read it.

resource "google_secret_manager_secret" "this" {
  project             = var.project
  secret_id           = var.name
  deletion_protection = true

  replication {
    user_managed {
      replicas {
        location = var.location

        customer_managed_encryption {
          kms_key_name = var.key
        }
      }
    }
  }

  version_destroy_ttl = "604800s" # a version that is destroyed can be had back for 7 days

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_secret_manager_secret_iam_binding" "this" {
  for_each = var.iam

  project   = var.project
  secret_id = google_secret_manager_secret.this.secret_id
  role      = each.key
  members   = each.value
}
