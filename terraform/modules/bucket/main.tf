# A bucket that nobody can make public, and who may do what with its objects.

resource "google_storage_bucket" "this" {
  project                     = var.project
  name                        = var.name
  location                    = var.location
  storage_class               = "STANDARD"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  enable_object_retention     = var.object_retention
  force_destroy               = false
  deletion_policy             = var.protected ? "PREVENT" : "DELETE"

  versioning {
    enabled = true
  }

  soft_delete_policy {
    retention_duration_seconds = var.soft_delete_days * 24 * 60 * 60
  }

  encryption {
    default_kms_key_name = var.key
  }

  dynamic "lifecycle_rule" {
    for_each = var.lifecycle_rules

    content {
      action {
        type = lifecycle_rule.value.action.type
      }
      condition {
        age                        = lifecycle_rule.value.condition.age
        days_since_custom_time     = lifecycle_rule.value.condition.daysSinceCustomTime
        days_since_noncurrent_time = lifecycle_rule.value.condition.daysSinceNoncurrentTime
        matches_prefix             = lifecycle_rule.value.condition.matchesPrefix
        matches_suffix             = lifecycle_rule.value.condition.matchesSuffix
      }
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_storage_bucket_iam_binding" "this" {
  for_each = var.iam

  bucket  = google_storage_bucket.this.name
  role    = each.key
  members = each.value
}

resource "google_storage_bucket_iam_binding" "where" {
  for_each = var.iam_where

  bucket  = google_storage_bucket.this.name
  role    = each.value.role
  members = each.value.members

  condition {
    title       = each.key
    description = each.value.description
    expression  = each.value.expression
  }
}
