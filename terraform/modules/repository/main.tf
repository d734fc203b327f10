# A repository of Artifact Registry, and who may pull and push.

resource "google_artifact_registry_repository" "this" {
  project       = var.project
  location      = var.location
  repository_id = var.name
  description   = var.description
  format        = var.format
  mode          = var.upstreams != null ? "VIRTUAL_REPOSITORY" : var.public != null ? "REMOTE_REPOSITORY" : "STANDARD_REPOSITORY"
  kms_key_name  = var.key

  dynamic "docker_config" {
    for_each = var.format == "DOCKER" ? [true] : []

    content {
      immutable_tags = true # a tag that was deployed is that image for good
    }
  }

  dynamic "remote_repository_config" {
    for_each = var.public == null ? [] : [var.public]

    content {
      python_repository {
        public_repository = remote_repository_config.value
      }
    }
  }

  dynamic "virtual_repository_config" {
    for_each = var.upstreams == null ? [] : [var.upstreams]

    content {
      dynamic "upstream_policies" {
        for_each = virtual_repository_config.value

        content {
          id         = upstream_policies.key
          repository = upstream_policies.value.repository
          priority   = upstream_policies.value.priority
        }
      }
    }
  }
}

resource "google_artifact_registry_repository_iam_binding" "this" {
  for_each = var.iam

  project    = var.project
  location   = google_artifact_registry_repository.this.location
  repository = google_artifact_registry_repository.this.repository_id
  role       = each.key
  members    = each.value
}
