output "name" {
  description = "The dataset's id, once its tables and grants are there."
  value       = google_bigquery_dataset.this.dataset_id
  depends_on  = [google_bigquery_table.this, google_bigquery_dataset_iam_binding.this]
}
