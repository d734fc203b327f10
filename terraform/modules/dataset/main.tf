# A dataset, its tables, and who may read and write them.

resource "google_bigquery_dataset" "this" {
  project                     = var.project
  dataset_id                  = var.name
  description                 = var.description
  location                    = var.location
  default_table_expiration_ms = var.table_days == null ? null : var.table_days * 24 * 60 * 60 * 1000
  max_time_travel_hours       = "168"
  delete_contents_on_destroy  = false
  deletion_policy             = var.protected ? "PREVENT" : "DELETE"

  default_encryption_configuration {
    kms_key_name = var.key
  }

  # Without this, BigQuery lets every viewer of the project read the dataset, and every editor write it.
  access {
    role          = "OWNER"
    special_group = "projectOwners"
  }

  lifecycle {
    prevent_destroy = true
    ignore_changes  = [access] # only what it begins with; then the bindings below rule
  }
}

resource "google_bigquery_dataset_iam_binding" "this" {
  for_each = var.iam

  project    = var.project
  dataset_id = google_bigquery_dataset.this.dataset_id
  role       = each.key
  members    = each.value
}

resource "google_bigquery_table" "this" {
  for_each = var.tables

  project             = var.project
  dataset_id          = google_bigquery_dataset.this.dataset_id
  table_id            = each.key
  description         = each.value.description
  schema              = each.value.schema
  clustering          = each.value.clustering
  deletion_protection = true

  time_partitioning {
    type  = "DAY"
    field = each.value.partition
  }

  encryption_configuration {
    kms_key_name = var.key
  }

  lifecycle {
    prevent_destroy = true
  }
}
