# Secrets without their values: people add them, `gcloud secrets versions add`, so they are in no state and no plan.

module "secret" {
  source   = "./modules/secret"
  for_each = var.secrets

  project  = var.project
  name     = "${local.name}-${each.key}"
  location = var.region
  key      = module.key["secrets"].id
  iam      = { "roles/secretmanager.secretAccessor" = [for who in each.value : local.members[who]] }
}
