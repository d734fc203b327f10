terraform {
  required_version = ">= 1.11"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 8.7"
    }
  }

  # The bucket and the prefix come with `terraform init -backend-config=…`: the state outlives any environment.
  backend "gcs" {}
}

provider "google" {
  project = var.project
  region  = var.region

  # Budgets and organisation policies are asked in the name of a project, whoever runs Terraform.
  user_project_override = true
  billing_project       = var.project

  default_labels = {
    app         = var.prefix
    environment = var.env
  }
}
