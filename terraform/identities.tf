# Who may do what. A name without a colon is one of the identities. Who holds one of these roles
# is complete: the next apply takes it from everybody else, except on the project itself, which holds Google's own grants
# too. A role that is not here is not looked at; docs/security.md says how such grants are found. Not here are Google's agents and the
# keys that they use (keys.tf), and what variables name: readers of secrets (secrets.tf), loaders of features (warehouse.tf).

locals {
  identities = {
    orchestrator = "Runs managed Airflow, and acts as the scorer for everything that touches data."
    scorer       = "Reads features, scores, publishes, records; the only one that writes predictions."
    reader       = "Reads published predictions, for what is downstream."
    deployer     = "GitHub Actions from the main branch: images, wheels, DAGs, and what roles do not change."
    planner      = "GitHub Actions before any approval: reads what Terraform compares, and no data."
    registrar    = "GitHub Actions from the main branch: registers models."
  }

  iam = {
    project = {
      "roles/composer.worker"           = ["orchestrator"]
      "roles/bigquery.jobUser"          = ["scorer", "reader"]
      "roles/bigquery.readSessionUser"  = ["scorer", "reader"]
      "roles/logging.logWriter"         = ["scorer"]
      "roles/composer.user"             = var.operators
      "roles/logging.viewer"            = var.operators
      "roles/monitoring.viewer"         = var.operators
      (local.custom_roles["provision"]) = ["deployer"]
      (local.custom_roles["plan"])      = ["planner"]
    }

    features = { # each dataset that pipelines read
      "roles/bigquery.dataViewer" = ["scorer"]
    }
    predictions = {
      "roles/bigquery.dataEditor" = ["scorer"]
      "roles/bigquery.dataViewer" = concat(["reader"], var.readers)
    }
    staging = {
      "roles/bigquery.dataEditor" = ["scorer"]
    }
    operations = {
      "roles/bigquery.dataEditor" = ["scorer"]
      "roles/bigquery.dataViewer" = var.operators
    }

    bucket = { # what is replaced and deleted: iam_where
      "roles/storage.legacyBucketReader" = ["scorer"]
      "roles/storage.objectViewer"       = concat(["scorer", "registrar"], var.operators)
      "roles/storage.objectCreator"      = ["scorer"]
    }
    dags = {
      "roles/storage.objectUser" = ["deployer", "orchestrator"]
    }

    images = {
      "roles/artifactregistry.writer" = ["deployer"]
      "roles/artifactregistry.reader" = var.image_readers
    }
    python = {
      "roles/artifactregistry.writer" = ["deployer"]
      "roles/artifactregistry.reader" = ["orchestrator"]
    }

    orchestrator = {                                                # who may act as the orchestrator: to change an environment is to run code as it
      "roles/iam.serviceAccountUser" = ["deployer", "orchestrator"] # itself: packages from Artifact Registry ask for it
    }
    scorer = { # who may act as the scorer
      "roles/iam.serviceAccountTokenCreator" = concat(["orchestrator", "deployer"], var.responders)
      "roles/iam.workloadIdentityUser"       = [for it in var.kubernetes_service_accounts : "serviceAccount:${var.project}.svc.id.goog[${it}]"]
    }
    reader    = {}
    deployer  = { "roles/iam.workloadIdentityUser" = local.github.deployer }
    planner   = { "roles/iam.workloadIdentityUser" = local.github.planner }
    registrar = { "roles/iam.workloadIdentityUser" = local.github.registrar }
  }

  # The same for some of a bucket's objects, by a condition.
  iam_where = {
    bucket = {
      "scorer replaces all but versions of models" = {
        role        = "roles/storage.objectUser"
        who         = ["scorer"]
        description = "Leases and aliases are replaced, parts of runs are deleted; versions of models never."
        expression  = local.not_a_version
      }
      "registrar creates in the registry" = {
        role        = "roles/storage.objectCreator"
        who         = ["registrar"]
        description = "New versions of models, and what belongs to them."
        expression  = local.in_registry
      }
      "registrar replaces aliases" = {
        role        = "roles/storage.objectUser"
        who         = ["registrar"]
        description = "Aliases and lists of imports are replaced; versions of models never."
        expression  = "${local.in_registry} && ${local.not_a_version}"
      }
    }
    dags = {
      "planner reads pip.conf" = {
        role        = "roles/storage.objectViewer"
        who         = ["planner"]
        description = "The one object here that Terraform compares; logs beside it are not for pull requests."
        expression  = "resource.name.startsWith(\"projects/_/buckets/${local.dags_bucket}/objects/config/\")"
      }
    }
  }

  # The table in IAM's words: service accounts by their e-mail, and no role without members.
  members = { for name, it in google_service_account.this : name => it.member }
  grants = {
    for resource, roles in local.iam : resource => {
      for role, who in roles : role => [for it in who : lookup(local.members, it, it)] if length(who) > 0
    }
  }
  grants_where = {
    for resource, grants in local.iam_where : resource => {
      for title, it in grants : title => merge(it, { members = [for who in it.who : local.members[who]] })
    }
  }
}

resource "google_service_account" "this" {
  for_each = local.identities

  project      = var.project
  account_id   = "${local.name}-${each.key}"
  display_name = "${local.name} ${each.key}"
  description  = each.value

  lifecycle {
    prevent_destroy = true # a new account of the same name has none of the old one's grants
  }

  depends_on = [google_project_service.this]
}

# Beside other grants of the same role: Google's agents hold some of them.
resource "google_project_iam_member" "this" {
  for_each = merge([
    for role, who in local.iam.project : { for it in who : "${role} ${it}" => { role = role, who = it } }
  ]...)

  project = var.project
  role    = each.value.role
  member  = lookup(local.members, each.value.who, each.value.who)

  depends_on = [google_project_iam_custom_role.this]
}

# Who may act as whom.
resource "google_service_account_iam_binding" "this" {
  for_each = merge([
    for name in keys(local.identities) : { for role, members in local.grants[name] : "${name} ${role}" => { name = name, role = role, members = members } }
  ]...)

  service_account_id = google_service_account.this[each.value.name].name
  role               = each.value.role
  members            = each.value.members
}
