# Production: features are another project's, keys are in hardware, Airflow survives the loss of a zone.
project = "example-scoring-prod"
env     = "prod"
region  = "europe-west4"

features = {
  features = { project = "example-warehouse-prod" }
  outcomes = { project = "example-warehouse-prod" }
}
readers    = ["group:collections@example.com", "group:risk-reporting@example.com"]
operators  = ["group:risk-ml@example.com"]
responders = ["group:risk-ml-on-call@example.com"]

github = { owner = "example", name = "nightscore", owner_id = "1234567", repository_id = "123456789" }

network = {
  subnet           = "10.20.0.0/24"
  private_services = "10.20.16.0/20"
}

orchestrator = {
  size       = "MEDIUM"
  resilient  = true
  workers    = { cpu = 4, memory_gb = 16, min = 2, max = 6 }
  web_access = { office = "203.0.113.0/24" }
}

pipelines = {
  credit_default = { published_by = "06:00" }
}

alerts = {
  emails           = ["risk-ml@example.com"]
  channels         = ["projects/example-scoring-prod/notificationChannels/1234567890"]
  max_psi          = 0.25
  max_bytes_billed = 200000000000
}
budget = { billing_account = "0A1B2C-3D4E5F-6A7B8C", amount = 3000 }

secrets = {
  mlflow-tracking-uri = ["scorer", "registrar"]
  model-signing-key   = ["registrar"]
}
settings       = { NIGHTSCORE_PRICE_PER_TIB = "6.25" }
retention      = { deleted_objects = 30, logs = 2555 }
key_protection = "HSM"
