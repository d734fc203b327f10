"""The local servers: BigQuery and Cloud Storage on this machine, for a laptop and for tests."""
