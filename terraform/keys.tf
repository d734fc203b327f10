# One key for each service, in the location of what it encrypts, used by Google's agents of that service alone.

locals {
  # BigQuery's multi-regions have other names in Cloud KMS.
  key_location = lookup({ US = "us", EU = "europe" }, local.data_location, local.data_location)

  agents = {
    artifacts = "serviceAccount:service-${local.number}@gcp-sa-artifactregistry.iam.gserviceaccount.com"
    bigquery  = "serviceAccount:bq-${local.number}@bigquery-encryption.iam.gserviceaccount.com"
    composer  = "serviceAccount:service-${local.number}@cloudcomposer-accounts.iam.gserviceaccount.com"
    compute   = "serviceAccount:service-${local.number}@compute-system.iam.gserviceaccount.com"
    container = "serviceAccount:service-${local.number}@container-engine-robot.iam.gserviceaccount.com"
    logging   = "serviceAccount:${data.google_logging_project_settings.this.kms_service_account_id}"
    pubsub    = "serviceAccount:service-${local.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
    secrets   = "serviceAccount:service-${local.number}@gcp-sa-secretmanager.iam.gserviceaccount.com"
    storage   = "serviceAccount:service-${local.number}@gs-project-accounts.iam.gserviceaccount.com"
  }

  keys = {
    artifacts = { location = var.region, agents = ["artifacts"] }
    bigquery  = { location = local.key_location, agents = ["bigquery"] }
    # Managed Airflow hands its key on to what it is made of, and its bucket is encrypted by it too.
    composer = { location = var.region, agents = ["artifacts", "composer", "compute", "container", "pubsub", "storage"] }
    logs     = { location = var.region, agents = ["logging"] }
    secrets  = { location = var.region, agents = ["secrets"] }
    storage  = { location = local.key_location, agents = ["storage"] }
  }
}

# The one agent whose name does not follow from the project's number.
data "google_logging_project_settings" "this" {
  project = var.project
}

# A key ring cannot be deleted, and neither can its name be used again.
resource "google_kms_key_ring" "this" {
  for_each = toset([for it in local.keys : it.location])

  project  = var.project
  name     = local.name
  location = each.key

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_project_service.this]
}

module "key" {
  source   = "./modules/key"
  for_each = local.keys

  name       = each.key
  key_ring   = google_kms_key_ring.this[each.value.location].id
  protection = var.key_protection
  iam        = { "roles/cloudkms.cryptoKeyEncrypterDecrypter" = [for it in each.value.agents : local.agents[it]] }
}
