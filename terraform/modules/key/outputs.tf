output "id" {
  description = "Id of the key, to be used once its service agent has been granted it."
  value       = google_kms_crypto_key.this.id
  depends_on  = [google_kms_crypto_key_iam_binding.this]
}
