# How code gets here: repositories of images and packages, and GitHub Actions without a key (Workload Identity Federation).

module "images" {
  source = "./modules/repository"

  project     = var.project
  location    = var.region
  name        = "${local.name}-images"
  description = "Images of Airflow with nightscore, for Kubernetes and own servers."
  format      = "DOCKER"
  key         = module.key["artifacts"].id
  iam         = local.grants.images
}

module "python" {
  source = "./modules/repository"

  project     = var.project
  location    = var.region
  name        = "${local.name}-python"
  description = "Wheels of nightscore."
  format      = "PYTHON"
  key         = module.key["artifacts"].id
  iam         = local.grants.python
}

module "python_proxy" {
  source = "./modules/repository"
  count  = var.python_proxy ? 1 : 0

  project     = var.project
  location    = var.region
  name        = "${local.name}-python-proxy"
  description = "Copies of packages of the public index."
  format      = "PYTHON"
  key         = module.key["artifacts"].id
  public      = "PYPI"
  iam         = { for role, who in local.grants.python : role => who if role == "roles/artifactregistry.reader" }
}

# What Airflow installs from. Ours come first: a package of the same name on the public index is never taken.
module "packages" {
  source = "./modules/repository"

  project     = var.project
  location    = var.region
  name        = "${local.name}-packages"
  description = "Wheels of nightscore, and what they need, as one index."
  format      = "PYTHON"
  key         = module.key["artifacts"].id
  upstreams = merge(
    { ours = { repository = module.python.id, priority = 100 } },
    { for it in module.python_proxy : "public" => { repository = it.id, priority = 1 } },
  )
  iam = { for role, who in local.grants.python : role => who if role == "roles/artifactregistry.reader" }
}

locals {
  pool = "projects/${local.number}/locations/global/workloadIdentityPools/${google_iam_workload_identity_pool.github.workload_identity_pool_id}"

  # Subjects as GitHub writes them; each is one kind of job of one repository. A name can be given up and taken by
  # somebody else, so the numbers must agree as well.
  repo    = var.github.ids_in_subjects ? "repo:${var.github.owner}@${var.github.owner_id}/${var.github.name}@${var.github.repository_id}" : "repo:${var.github.owner}/${var.github.name}"
  ours    = var.github.repository_id == null || var.github.owner_id == null ? "" : " && assertion.repository_id == '${var.github.repository_id}' && assertion.repository_owner_id == '${var.github.owner_id}'"
  subject = "principal://iam.googleapis.com/${local.pool}/subject/${local.repo}"
  github = {
    deployer  = ["${local.subject}:environment:${var.env}"]
    registrar = ["${local.subject}:environment:${var.github.models_environment}"]
    planner   = ["${local.subject}:pull_request", "${local.subject}:ref:refs/heads/${var.github.branch}"]
  }
}

resource "google_iam_workload_identity_pool" "github" {
  project                   = var.project
  workload_identity_pool_id = "${local.name}-github"
  display_name              = "GitHub Actions"
  description               = "Jobs of ${var.github.owner}/${var.github.name}."

  depends_on = [google_project_service.this]
}

resource "google_iam_workload_identity_pool_provider" "github" {
  project                            = var.project
  workload_identity_pool_id          = google_iam_workload_identity_pool.github.workload_identity_pool_id
  workload_identity_pool_provider_id = "github"
  display_name                       = "GitHub Actions"
  description                        = "${var.github.owner}/${var.github.name}: the branch ${var.github.branch}, and pull requests without an environment."

  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
    "attribute.ref"        = "assertion.ref"
    "attribute.actor"      = "assertion.actor"
  }

  # Exactly these jobs: the environment's on the branch, that of models on the branch, and, without an environment, the
  # branch's and those of pull requests. An environment alone would do for any branch that may use it.
  attribute_condition = <<-EOT
    (assertion.sub == '${local.repo}:environment:${var.env}' && assertion.ref == 'refs/heads/${var.github.branch}'${local.ours})
    || (assertion.sub == '${local.repo}:environment:${var.github.models_environment}' && assertion.ref == 'refs/heads/${var.github.branch}'${local.ours})
    || (assertion.sub == '${local.repo}:ref:refs/heads/${var.github.branch}' && assertion.ref == 'refs/heads/${var.github.branch}'${local.ours})
    || (assertion.sub == '${local.repo}:pull_request'${local.ours})
  EOT

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

# What the deployer may do to infrastructure. Not: who may do what, service accounts, the federation; and nothing by which
# data could end, like a bucket's lifecycle, a log's retention or names inside the network. People apply those
# (docs/deploy.md). What remains: a table's expiration is one of its settings.
locals {
  custom_roles = { for name in ["provision", "plan"] : name => "projects/${var.project}/roles/${replace(local.name, "-", "_")}_${name}" }

  plan      = concat(flatten([for type in local.readable : ["${type}.get", "${type}.list"]]), local.readable_otherwise)
  provision = concat(local.plan, local.changeable)

  readable = [
    "artifactregistry.repositories",
    "cloudkms.cryptoKeys",
    "cloudkms.keyRings",
    "composer.environments",
    "composer.operations",
    "compute.firewalls",
    "compute.globalAddresses",
    "compute.networks",
    "compute.routes",
    "compute.subnetworks",
    "dns.managedZones",
    "dns.resourceRecordSets",
    "iam.roles",
    "iam.serviceAccounts",
    "iam.workloadIdentityPoolProviders",
    "iam.workloadIdentityPools",
    "logging.buckets",
    "logging.logMetrics",
    "logging.sinks",
    "monitoring.alertPolicies",
    "monitoring.dashboards",
    "monitoring.notificationChannels",
    "secretmanager.secrets",
    "serviceusage.services",
    "storage.buckets",
  ]

  readable_otherwise = [
    "artifactregistry.repositories.getIamPolicy",
    "bigquery.datasets.get",
    "bigquery.datasets.getIamPolicy",
    "bigquery.tables.get",
    "bigquery.tables.list",
    "billing.resourcebudgets.read", # of the budget of this project alone
    "cloudkms.cryptoKeyVersions.get",
    "cloudkms.cryptoKeys.getIamPolicy",
    "compute.globalOperations.get",
    "compute.regionOperations.get",
    "dns.changes.get",
    "iam.serviceAccounts.getIamPolicy",
    "iam.workloadIdentityPools.getAttestationRules", # the provider asks for them whenever it reads a pool
    "logging.settings.get",
    "resourcemanager.projects.get",
    "resourcemanager.projects.getIamPolicy",
    "secretmanager.secrets.getIamPolicy",
    "servicenetworking.services.get",
    "serviceusage.services.use",
    "storage.buckets.getIamPolicy",
  ]

  changeable = [
    "artifactregistry.repositories.create",
    "artifactregistry.repositories.update",
    "bigquery.tables.create",
    "bigquery.tables.update",
    "composer.environments.update",
    "compute.firewalls.create",
    "compute.firewalls.update",
    "compute.networks.updatePolicy",
    "dns.changes.create",
    "dns.resourceRecordSets.create",
    "logging.logMetrics.create",
    "logging.logMetrics.delete",
    "logging.logMetrics.update",
    "monitoring.alertPolicies.create",
    "monitoring.alertPolicies.delete",
    "monitoring.alertPolicies.update",
    "monitoring.dashboards.create",
    "monitoring.dashboards.delete",
    "monitoring.dashboards.update",
    "monitoring.notificationChannels.create",
    "monitoring.notificationChannels.delete",
    "monitoring.notificationChannels.update",
  ]
}

resource "google_project_iam_custom_role" "this" {
  for_each = {
    provision = { title = "change infrastructure", permissions = local.provision }
    plan      = { title = "compare infrastructure", permissions = local.plan }
  }

  project     = var.project
  role_id     = basename(local.custom_roles[each.key])
  title       = "${local.name}: ${each.value.title}"
  description = "What GitHub Actions need to ${each.value.title} of ${local.name}; no grants, and no data."
  permissions = each.value.permissions
}
