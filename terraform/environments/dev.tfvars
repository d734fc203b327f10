# A throw-away environment: datasets of features of its own, the smallest Airflow, nothing locked.
project   = "example-scoring-dev"
env       = "dev"
region    = "europe-west4"
protected = false

features = {
  features = { create = true, loaders = ["group:risk-data@example.com"] }
  outcomes = { create = true, loaders = ["group:risk-data@example.com"] }
}
operators = ["group:risk-ml@example.com"]

github = { owner = "example", name = "nightscore", owner_id = "1234567", repository_id = "123456789" }

orchestrator = {
  web_access = { office = "203.0.113.0/24" }
}

alerts    = { emails = ["risk-ml@example.com"] }
budget    = { billing_account = "0A1B2C-3D4E5F-6A7B8C", amount = 700 }
retention = { logs = 30 }
settings  = { NIGHTSCORE_LEASE_SECONDS = "60" }
