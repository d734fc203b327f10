# BigQuery: what is read, what is published, what runs leave behind. Schemas are the files that nightscore reads too.

locals {
  datasets = {
    predictions = {
      name        = "predictions"
      description = "Predictions published by nightscore."
      table_days  = null
      tables      = local.prediction_tables
      iam         = local.grants.predictions
    }
    staging = {
      name        = "nightscore_staging"
      description = "Frozen rows and staged predictions of runs; all of it expires."
      table_days  = var.retention.staging_tables
      tables      = {}
      iam         = local.grants.staging
    }
    operations = {
      name        = "nightscore_operations"
      description = "What nightscore ran, checked, rejected and published."
      table_days  = null
      tables      = local.operations_tables
      iam         = local.grants.operations
    }
  }

  operations_tables = {
    for name in ["checks", "evidence", "fences", "publications", "quarantine", "runs"] : name => {
      schema     = file("${local.schemas}/${name}.json")
      partition  = "partition_date"
      clustering = ["pipeline"]
    }
  }

  # One file per table, written by tables.py from the pipeline's spec. A pipeline without one creates its own tables.
  prediction_tables = merge([
    for file in fileset("${path.module}/pipelines", "*.json") : {
      for name, it in jsondecode(file("${path.module}/pipelines/${file}")).tables : name => merge(it, { schema = jsonencode(it.schema) })
      if it.dataset == "predictions"
    }
  ]...)
}

module "dataset" {
  source   = "./modules/dataset"
  for_each = local.datasets

  project     = var.project
  name        = each.value.name
  description = each.value.description
  location    = local.data_location
  key         = module.key["bigquery"].id
  protected   = var.protected
  table_days  = each.value.table_days
  tables      = each.value.tables
  iam         = each.value.iam
}

# Datasets of features that nobody else provides.
module "features" {
  source   = "./modules/dataset"
  for_each = { for name, it in var.features : name => it if it.create }

  project     = var.project
  name        = each.key
  description = "What pipelines of nightscore read: one partition a night."
  location    = local.data_location
  key         = module.key["bigquery"].id
  protected   = var.protected
  iam = merge(local.grants.features, {
    for role, who in { "roles/bigquery.dataEditor" = each.value.loaders } : role => who if length(who) > 0
  })
}

# Given datasets: one grant is added, and nothing else of them is touched. Those of another project are their owner's to
# grant: who applies this may have no rights there, and need none (output `requests`).
resource "google_bigquery_dataset_iam_member" "features" {
  for_each = { for name, it in var.features : name => it if !it.create && it.project == null }

  project    = var.project
  dataset_id = each.key
  role       = "roles/bigquery.dataViewer"
  member     = local.members.scorer
}
