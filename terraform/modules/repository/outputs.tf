output "id" {
  description = "Full name of the repository."
  value       = google_artifact_registry_repository.this.id
}
