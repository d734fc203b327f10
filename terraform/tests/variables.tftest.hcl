# What variables refuse, and that they do: one run for every validation.

mock_provider "google" {}

variables {
  project      = "example-scoring-dev"
  env          = "dev"
  region       = "europe-west4"
  features     = { features = {} }
  github       = { owner = "example", name = "nightscore" }
  orchestrator = {}
  package      = "0.1.0"
  alerts       = { emails = ["risk-ml@example.com"] }
}

run "a_project_is_an_id" {
  command = plan

  variables {
    project = "Risk Scoring"
  }

  expect_failures = [var.project]
}

run "an_environment_is_a_short_name" {
  command = plan

  variables {
    env = "Production"
  }

  expect_failures = [var.env]
}

run "a_prefix_fits_into_names" {
  command = plan

  variables {
    prefix = "night-score-company"
  }

  expect_failures = [var.prefix]
}

run "a_region_is_one" {
  command = plan

  variables {
    region = "Europe"
  }

  expect_failures = [var.region]
}

run "data_is_where_bigquery_is" {
  command = plan

  variables {
    data_location = "Asia"
  }

  expect_failures = [var.data_location]
}

run "production_cannot_be_unprotected" {
  command = plan

  variables {
    env       = "prod"
    protected = false
  }

  expect_failures = [var.protected]
}

run "pipelines_read_something" {
  command = plan

  variables {
    features = {}
  }

  expect_failures = [var.features]
}

run "another_projects_dataset_is_not_created" {
  command = plan

  variables {
    features = { features = { project = "other-project", create = true } }
  }

  expect_failures = [var.features]
}

run "no_single_person_loads" {
  command = plan

  variables {
    features = { features = { create = true, loaders = ["user:ada@example.com"] } }
  }

  expect_failures = [var.features]
}

run "the_public_reads_nothing" {
  command = plan

  variables {
    readers = ["allUsers"]
  }

  expect_failures = [var.readers]
}

run "no_single_person_reads" {
  command = plan

  variables {
    readers = ["user:ada@example.com"]
  }

  expect_failures = [var.readers]
}

run "operators_are_groups" {
  command = plan

  variables {
    operators = ["user:ada@example.com"]
  }

  expect_failures = [var.operators]
}

run "any_repository_is_no_repository" {
  command = plan

  variables {
    github = { owner = "*", name = "nightscore" }
  }

  expect_failures = [var.github]
}

run "a_repository_has_a_number" {
  command = plan

  variables {
    github = { owner = "example", name = "nightscore", owner_id = "1234567", repository_id = "nightscore" }
  }

  expect_failures = [var.github]
}

run "subjects_with_ids_need_ids" {
  command = plan

  variables {
    github = { owner = "example", name = "nightscore", ids_in_subjects = true }
  }

  expect_failures = [var.github]
}

run "responders_are_groups" {
  command = plan

  variables {
    responders = ["user:ada@example.com"]
  }

  expect_failures = [var.responders]
}

run "any_branch_is_no_branch" {
  command = plan

  variables {
    github = { owner = "example", name = "nightscore", branch = "release/*" }
  }

  expect_failures = [var.github]
}

run "nodes_pull_images" {
  command = plan

  variables {
    image_readers = ["group:everybody@example.com"]
  }

  expect_failures = [var.image_readers]
}

run "pods_have_a_namespace" {
  command = plan

  variables {
    kubernetes_service_accounts = ["airflow-worker"]
  }

  expect_failures = [var.kubernetes_service_accounts]
}

run "the_subnet_is_private" {
  command = plan

  variables {
    network = { subnet = "8.8.8.0/24" }
  }

  expect_failures = [var.network]
}

run "private_services_are_a_range" {
  command = plan

  variables {
    network = { private_services = "10.20.16.0" }
  }

  expect_failures = [var.network]
}

run "airflow_is_pinned_to_a_build" {
  command = plan

  variables {
    orchestrator = { image = "composer-3-airflow-3" }
  }

  expect_failures = [var.orchestrator]
}

run "the_package_is_a_version" {
  command = plan

  variables {
    package = "latest"
  }

  expect_failures = [var.package]
}

run "airflow_needs_a_package" {
  command = plan

  variables {
    package = null
  }

  expect_failures = [var.package]
}

run "the_size_is_known" {
  command = plan

  variables {
    orchestrator = { size = "HUGE" }
  }

  expect_failures = [var.orchestrator]
}

run "there_is_a_worker" {
  command = plan

  variables {
    orchestrator = { workers = { min = 0 } }
  }

  expect_failures = [var.orchestrator]
}

run "pages_are_not_for_everybody" {
  command = plan

  variables {
    orchestrator = { web_access = { all = "0.0.0.0/0" } }
  }

  expect_failures = [var.orchestrator]
}

run "an_hour_is_one_of_the_day" {
  command = plan

  variables {
    pipelines = { credit_default = { published_by = "6am" } }
  }

  expect_failures = [var.pipelines]
}

run "a_pipeline_is_named_as_its_folder" {
  command = plan

  variables {
    pipelines = { "Credit Default" = { published_by = "06:00" } }
  }

  expect_failures = [var.pipelines]
}

run "alerts_reach_somebody" {
  command = plan

  variables {
    alerts = {}
  }

  expect_failures = [var.alerts]
}

run "a_channel_has_its_full_name" {
  command = plan

  variables {
    alerts = { channels = ["pagerduty"] }
  }

  expect_failures = [var.alerts]
}

run "limits_are_above_zero" {
  command = plan

  variables {
    alerts = { emails = ["a@example.com"], max_psi = 0 }
  }

  expect_failures = [var.alerts]
}

run "a_billing_account_is_named" {
  command = plan

  variables {
    budget = { billing_account = "mine", amount = 100 }
  }

  expect_failures = [var.budget]
}

run "a_budget_is_an_amount" {
  command = plan

  variables {
    budget = { billing_account = "0A1B2C-3D4E5F-6A7B8C", amount = 0.5 }
  }

  expect_failures = [var.budget]
}

run "a_secret_has_a_plain_name" {
  command = plan

  variables {
    secrets = { "MLflow URI" = ["scorer"] }
  }

  expect_failures = [var.secrets]
}

run "secrets_are_read_by_identities" {
  command = plan

  variables {
    secrets = { token = ["group:everybody@example.com"] }
  }

  expect_failures = [var.secrets]
}

run "settings_are_known" {
  command = plan

  variables {
    settings = { NIGHTSCORE_BUCKET = "another" }
  }

  expect_failures = [var.settings]
}

run "settings_hold_no_password" {
  command = plan

  variables {
    settings = { NIGHTSCORE_MLFLOW_TRACKING_URI = "https://me:secret@mlflow.example.com" }
  }

  expect_failures = [var.settings]
}

run "deleted_objects_come_back" {
  command = plan

  variables {
    retention = { deleted_objects = 0 }
  }

  expect_failures = [var.retention]
}

run "logs_are_kept" {
  command = plan

  variables {
    retention = { logs = 0 }
  }

  expect_failures = [var.retention]
}

run "keys_are_kept_somewhere" {
  command = plan

  variables {
    key_protection = "EXTERNAL"
  }

  expect_failures = [var.key_protection]
}
