# The bucket: the registry of models, the records of runs, leases.
#
# A retention policy holds for a whole bucket, and leases and aliases must be replaced, so versions of models are kept by
# four other means: nobody here is granted to delete or replace them; replaced and deleted objects stay as noncurrent
# versions, which no rule removes under registry/; deleted ones can be restored for some days whoever deleted them; and
# an object can be locked until a day (docs/deploy.md), which nobody can undo.

locals {
  bucket  = "${local.name}-${var.project}"
  objects = "projects/_/buckets/${local.bucket}/objects"

  # True for the bucket itself and for every object but those of registry/models/<name>/versions/.
  not_a_version = "resource.name.extract(\"/objects/registry/models/{name}/versions/\") == \"\""
  in_registry   = "resource.name.startsWith(\"${local.objects}/registry/\")"
}

module "bucket" {
  source = "./modules/bucket"

  project          = var.project
  name             = local.bucket
  location         = local.data_location
  key              = module.key["storage"].id
  protected        = var.protected
  soft_delete_days = var.retention.deleted_objects
  object_retention = true
  lifecycle_rules  = jsondecode(file("${local.schemas}/lifecycle.json")).rule
  iam              = local.grants.bucket
  iam_where        = local.grants_where.bucket
}
