# What several files need. Everything else stands in the file that is named after it.

data "google_project" "this" {
  project_id = var.project
}

locals {
  name          = "${var.prefix}-${var.env}"
  number        = data.google_project.this.number
  data_location = coalesce(var.data_location, var.region)
  schemas       = "${path.module}/../include/nightscore/schemas" # the files that nightscore itself reads
  repository    = "https://github.com/${var.github.owner}/${var.github.name}"
}

# A project with a lien cannot be deleted until somebody removes the lien by hand.
resource "google_resource_manager_lien" "this" {
  count = var.protected ? 1 : 0

  parent       = "projects/${local.number}"
  origin       = local.name
  reason       = "Holds the models, predictions and records of ${local.name}."
  restrictions = ["resourcemanager.projects.delete"]
}
