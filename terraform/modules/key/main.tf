# An encryption key that rotates, and the service agents that may use it.

resource "google_kms_crypto_key" "this" {
  name                       = var.name
  key_ring                   = var.key_ring
  purpose                    = "ENCRYPT_DECRYPT"
  rotation_period            = "7776000s" # 90 days; what is stored stays readable, old versions are kept
  destroy_scheduled_duration = "2592000s" # 30 days in which the destruction of a version can be called off

  version_template {
    algorithm        = "GOOGLE_SYMMETRIC_ENCRYPTION"
    protection_level = var.protection
  }

  lifecycle {
    prevent_destroy = true # with the key goes everything that it encrypts
  }
}

resource "google_kms_crypto_key_iam_binding" "this" {
  for_each = var.iam

  crypto_key_id = google_kms_crypto_key.this.id
  role          = each.key
  members       = each.value
}
