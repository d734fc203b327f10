locals {
  # Exactly what nightscore needs to know of what is made here; wherever it runs.
  settings = merge(var.settings, {
    NIGHTSCORE_PROJECT            = var.project
    NIGHTSCORE_BUCKET             = local.bucket
    NIGHTSCORE_LOCATION           = local.data_location
    NIGHTSCORE_STAGING_DATASET    = local.datasets.staging.name
    NIGHTSCORE_OPERATIONS_DATASET = local.datasets.operations.name
    NIGHTSCORE_EVENTS_LOG         = var.prefix
  })

  # Managed Airflow runs as the orchestrator, and acts as the scorer; pods on Kubernetes are the scorer.
  orchestrator_settings = merge(local.settings, {
    NIGHTSCORE_SERVICE_ACCOUNT = google_service_account.this["scorer"].email
    NIGHTSCORE_HOME            = "/home/airflow/gcs"
  })
}

output "settings" {
  description = "The settings of nightscore, NIGHTSCORE_… => value, for whoever runs it as the scorer."
  value       = local.settings
}

output "orchestrator_settings" {
  description = "The settings that managed Airflow is given: those above, whom to act as, and where DAGs are."
  value       = local.orchestrator_settings
}

output "requests" {
  description = "Grants that owners of other projects have to make, for nightscore to read there."
  value = [for name, it in var.features : {
    dataset = "${it.project}.${name}"
    role    = "roles/bigquery.dataViewer"
    member  = local.members.scorer
  } if it.project != null]
}

output "scorer" {
  description = "E-mail address of the scorer, for pods on Kubernetes and for NIGHTSCORE_SERVICE_ACCOUNT elsewhere."
  value       = google_service_account.this["scorer"].email
}

output "reader" {
  description = "E-mail address of the reader of predictions."
  value       = google_service_account.this["reader"].email
}

output "workload_identity_provider" {
  description = "WORKLOAD_IDENTITY_PROVIDER of GitHub Actions."
  value       = "${local.pool}/providers/${google_iam_workload_identity_pool_provider.github.workload_identity_pool_provider_id}"
}

output "deployer" {
  description = "DEPLOYER of GitHub Actions: jobs of the GitHub environment of this name on the main branch act as it."
  value       = google_service_account.this["deployer"].email
}

output "planner" {
  description = "PLANNER of GitHub Actions: jobs of pull requests act as it."
  value       = google_service_account.this["planner"].email
}

output "registrar" {
  description = "MODEL_REGISTRAR of GitHub Actions: jobs that register models act as it."
  value       = google_service_account.this["registrar"].email
}

output "image_repository" {
  description = "IMAGE_REPOSITORY: what images' names begin with."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${local.name}-images"
}

output "python_repository" {
  description = "PYTHON_REPOSITORY: where wheels are uploaded."
  value       = "https://${var.region}-python.pkg.dev/${var.project}/${local.name}-python/"
}

output "dags_bucket" {
  description = "DAGS_BUCKET: the bucket of managed Airflow."
  value       = module.dags.name
}

output "composer_environment" {
  description = "COMPOSER_ENVIRONMENT: the name of managed Airflow; null where there is none."
  value       = one(google_composer_environment.this[*].name)
}

output "airflow_uri" {
  description = "Address of Airflow's pages; null where there is none."
  value       = one(google_composer_environment.this[*].config[0].airflow_uri)
}
