output "name" {
  description = "The bucket's name, once its grants are there."
  value       = google_storage_bucket.this.name
  depends_on  = [google_storage_bucket_iam_binding.this, google_storage_bucket_iam_binding.where]
}
