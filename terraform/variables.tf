variable "project" {
  description = "Id of the Google Cloud project of this environment. It must exist, have billing, and hold nothing else."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "The project is an id such as risk-scoring-prod: 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "env" {
  description = "Name of the environment; part of every name, and the GitHub environment that may deploy to it."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{1,5}$", var.env))
    error_message = "The environment is named by 2 to 6 lower-case letters and digits, such as dev or prod."
  }
}

variable "prefix" {
  description = "What every name begins with: {prefix}-{env}-{role}."
  type        = string
  default     = "nightscore"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{2,9}$", var.prefix))
    error_message = "The prefix is 3 to 10 lower-case letters and digits: with it, a service account's name must fit into 30 characters."
  }
}

variable "region" {
  description = "Region of everything that has one: Airflow, images, secrets, logs."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "The region is named like europe-west4."
  }
}

variable "data_location" {
  description = "BigQuery location of the datasets and the bucket; null: the region. The features must be in the same one."
  type        = string
  default     = null

  validation {
    condition     = var.data_location == null || can(regex("^(US|EU|[a-z]+-[a-z]+[0-9]+)$", var.data_location))
    error_message = "The location of the data is US, EU or a region such as europe-west4."
  }
}

variable "protected" {
  description = "Whether deleting is made hard: a lien on the project, and Terraform refuses to delete what holds data. Only a throw-away environment has false."
  type        = bool
  default     = true
  nullable    = false

  validation {
    condition     = var.protected || var.env != "prod"
    error_message = "Production is protected: protected = false is for environments that may vanish."
  }
}

variable "features" {
  description = "Datasets that pipelines read, by name: features, markers, outcomes. They are given, or with create = true made here; a grant on another project's is asked for, in the output `requests`."
  type = map(object({
    project = optional(string)
    create  = optional(bool, false)
    loaders = optional(list(string), []) # members that may write into a created one
  }))
  nullable = false

  validation {
    condition     = length(var.features) > 0 && alltrue([for name, _ in var.features : can(regex("^[A-Za-z0-9_]+$", name))])
    error_message = "Name at least one dataset that pipelines read, by letters, digits and underscores."
  }
  validation {
    condition     = alltrue([for _, it in var.features : !(it.create && it.project != null)])
    error_message = "A dataset of another project is given: it cannot have create = true."
  }
  validation {
    condition     = alltrue(flatten([for _, it in var.features : [for who in it.loaders : can(regex("^(group|serviceAccount|principalSet):", who))]]))
    error_message = "Who loads features is a group, a service account or a principal set, such as group:risk-data@example.com."
  }
}

variable "readers" {
  description = "Members, beside the service account `reader`, that may read predictions: groups, or service accounts of other projects."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for who in var.readers : can(regex("^(group|serviceAccount):[^@ ]+@[^@ ]+$", who))])
    error_message = "A reader is a group or a service account, such as group:collections@example.com; single persons and the public are not."
  }
}

variable "operators" {
  description = "Groups that look after the nights: they see Airflow's pages, the operations dataset, records of runs, logs and dashboards."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for who in var.operators : can(regex("^group:[^@ ]+@[^@ ]+$", who))])
    error_message = "Operators are groups, such as group:risk-ml@example.com: persons come and go there, and not here."
  }
}

variable "responders" {
  description = "Groups on call: they may act as the scorer, to run a night again, roll it back or move an alias by hand."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for who in var.responders : can(regex("^group:[^@ ]+@[^@ ]+$", who))])
    error_message = "Responders are groups, such as group:risk-ml-on-call@example.com: persons come and go there, and not here."
  }
}

variable "github" {
  description = "The repository that may deploy: by name and by GitHub's numbers, which nobody can take over; whether its tokens' subjects hold those (of repositories made or renamed since July 2026); the branch it deploys from, and the GitHub environment that may register models."
  type = object({
    owner              = string
    name               = string
    owner_id           = optional(string) # gh api repos/OWNER/NAME --jq .owner.id
    repository_id      = optional(string) # gh api repos/OWNER/NAME --jq .id
    ids_in_subjects    = optional(bool, false)
    branch             = optional(string, "main")
    models_environment = optional(string, "models")
  })
  nullable = false

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9-]*$", var.github.owner)) && can(regex("^[A-Za-z0-9._-]+$", var.github.name))
    error_message = "The repository is named by its owner and its name, without https:// and without wildcards."
  }
  validation {
    condition     = alltrue([for id in [var.github.owner_id, var.github.repository_id] : id == null || can(regex("^[0-9]+$", id))])
    error_message = "GitHub's ids of owner and repository are numbers: gh api repos/OWNER/NAME --jq '.owner.id, .id'."
  }
  validation {
    condition     = !var.github.ids_in_subjects || (var.github.owner_id != null && var.github.repository_id != null)
    error_message = "Subjects that hold ids need both, owner_id and repository_id."
  }
  validation {
    condition     = can(regex("^[A-Za-z0-9._/-]+$", var.github.branch)) && can(regex("^[A-Za-z0-9_-]+$", var.github.models_environment))
    error_message = "The branch is named like main, the environment like models: no wildcards."
  }
}

variable "image_readers" {
  description = "Service accounts that pull images: those of the nodes of a cluster, where Airflow runs on Kubernetes."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for who in var.image_readers : can(regex("^serviceAccount:[^@ ]+@[^@ ]+$", who))])
    error_message = "Images are pulled by service accounts, such as serviceAccount:nodes@example.iam.gserviceaccount.com."
  }
}

variable "kubernetes_service_accounts" {
  description = "Kubernetes service accounts of this project's clusters that act as the scorer, as namespace/name; none on managed Airflow."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for it in var.kubernetes_service_accounts : can(regex("^[a-z0-9-]+/[a-z0-9-]+$", it))])
    error_message = "A Kubernetes service account is named namespace/name, such as airflow/airflow-worker."
  }
}

variable "network" {
  description = "Address ranges: the subnet that Airflow is attached to, and the range for private service access (Cloud SQL, Memorystore), null where none is needed."
  type = object({
    subnet           = optional(string, "10.20.0.0/24")
    private_services = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(cidrhost(var.network.subnet, 0)) && can(regex("^(10\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.|192\\.168\\.)", var.network.subnet))
    error_message = "The subnet is a private range such as 10.20.0.0/24."
  }
  validation {
    condition     = var.network.private_services == null || can(cidrhost(var.network.private_services, 0))
    error_message = "The range for private service access is one such as 10.20.16.0/20, or null."
  }
}

variable "orchestrator" {
  description = "Managed Airflow; null: none, as in the first apply (the wheel of `package` must be in its repository before) or where Airflow runs elsewhere."
  type = object({
    image     = optional(string, "composer-3-airflow-3.3.1-build.0")
    extras    = optional(list(string), ["lightgbm", "onnx", "xgboost"])
    size      = optional(string, "SMALL")
    resilient = optional(bool, false)
    workers = optional(object({
      cpu       = optional(number, 2)
      memory_gb = optional(number, 8)
      min       = optional(number, 1)
      max       = optional(number, 3)
    }), {})
    web_access = optional(map(string), {}) # description => range of addresses that may open Airflow's pages
  })

  validation {
    condition     = var.orchestrator == null || can(regex("^composer-3-airflow-3\\.3\\.[0-9]+-build\\.[0-9]+$", var.orchestrator.image))
    error_message = "The image is one of Gen 3 with Airflow 3.3, pinned to its build: composer-3-airflow-3.3.1-build.0."
  }
  validation {
    condition     = var.orchestrator == null || try(contains(["SMALL", "MEDIUM", "LARGE"], var.orchestrator.size), false)
    error_message = "The size is SMALL, MEDIUM or LARGE: it sets the database, and not the workers."
  }
  validation {
    condition     = var.orchestrator == null || try(var.orchestrator.workers.min >= 1 && var.orchestrator.workers.min <= var.orchestrator.workers.max, false)
    error_message = "There is at least one worker, and no more at least than at most."
  }
  validation {
    condition     = var.orchestrator == null || try(alltrue([for _, range in var.orchestrator.web_access : can(cidrhost(range, 0)) && !strcontains(range, "/0")]), false)
    error_message = "Airflow's pages are opened to ranges such as 203.0.113.0/24, and never to everybody (/0)."
  }
}

variable "package" {
  description = "Version of nightscore's wheel that managed Airflow installs. Whoever deploys gives it; it stands in no file."
  type        = string
  default     = null

  validation {
    condition     = var.package == null || can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+[abrc0-9.]*(\\.(post|dev)[0-9]+)?(\\+[a-z0-9.]+)?$", var.package))
    error_message = "The package is a version of the wheel, such as 0.1.0."
  }
  validation {
    condition     = var.package != null || var.orchestrator == null
    error_message = "Managed Airflow installs the wheel in a version that was uploaded before: give -var package=0.1.0, or -var orchestrator=null."
  }
}

variable "python_proxy" {
  description = "Whether packages that are not ours come from the public index through a repository that keeps copies; false: all of them must be uploaded."
  type        = bool
  default     = true
  nullable    = false
}

variable "pipelines" {
  description = "When the predictions of a pipeline must have been published, as hh:mm in UTC, by the pipeline's name."
  type = map(object({
    published_by = string
  }))
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for _, it in var.pipelines : can(regex("^([01][0-9]|2[0-3]):[0-5][0-9]$", it.published_by))])
    error_message = "The time is an hour of the day in UTC, such as 06:00."
  }
  validation {
    condition     = alltrue([for name, _ in var.pipelines : can(regex("^[a-z][a-z0-9_]*$", name))])
    error_message = "A pipeline is named as its folder: lower-case letters, digits and underscores."
  }
}

variable "alerts" {
  description = "Whom alerts reach, and from which figures on. Channels of other kinds (PagerDuty, Slack) are made elsewhere and named here by their id."
  type = object({
    emails           = optional(list(string), [])
    channels         = optional(list(string), [])
    max_psi          = optional(number, 0.25)
    max_bytes_billed = optional(number, 1099511627776)
  })
  nullable = false

  validation {
    condition     = length(var.alerts.emails) + length(var.alerts.channels) > 0
    error_message = "Alerts must reach somebody: name an e-mail address or a channel."
  }
  validation {
    condition     = alltrue([for it in var.alerts.channels : can(regex("^projects/[^/]+/notificationChannels/[0-9]+$", it))])
    error_message = "A channel is named projects/PROJECT/notificationChannels/NUMBER."
  }
  validation {
    condition     = var.alerts.max_psi > 0 && var.alerts.max_bytes_billed > 0
    error_message = "The limits of drift and of bytes are above zero."
  }
}

variable "budget" {
  description = "Monthly budget of the project, and the billing account that pays; null where somebody else watches the bill."
  type = object({
    billing_account = string
    amount          = number
    currency        = optional(string, "USD")
  })
  default = null

  validation {
    condition     = var.budget == null || can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.budget.billing_account))
    error_message = "The billing account is named like 0A1B2C-3D4E5F-6A7B8C."
  }
  validation {
    condition     = var.budget == null || try(var.budget.amount >= 1 && floor(var.budget.amount) == var.budget.amount, false)
    error_message = "The budget is a whole amount of money for a month."
  }
}

variable "secrets" {
  description = "Secrets, without their values, and which of the identities may read them."
  type        = map(list(string))
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name, _ in var.secrets : can(regex("^[a-z][a-z0-9-]{1,60}$", name))])
    error_message = "A secret is named by lower-case letters, digits and hyphens, such as mlflow-tracking-uri."
  }
  validation {
    condition     = alltrue(flatten([for _, who in var.secrets : [for it in who : contains(["orchestrator", "scorer", "registrar"], it)]]))
    error_message = "Secrets are read by orchestrator, scorer or registrar."
  }
}

variable "settings" {
  description = "Further settings of nightscore, NIGHTSCORE_… => value; those that name what is made here are set by themselves."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition = alltrue([for name, _ in var.settings : contains([
      "NIGHTSCORE_LEASE_SECONDS", "NIGHTSCORE_PRICE_PER_TIB", "NIGHTSCORE_CURRENCY", "NIGHTSCORE_TRUSTED_SIGNERS",
      "NIGHTSCORE_MLFLOW_TRACKING_URI", "NIGHTSCORE_VERTEX_LOCATION",
    ], name)])
    error_message = "Only NIGHTSCORE_LEASE_SECONDS, _PRICE_PER_TIB, _CURRENCY, _TRUSTED_SIGNERS, _MLFLOW_TRACKING_URI and _VERTEX_LOCATION are set by hand."
  }
  validation {
    condition     = alltrue([for _, value in var.settings : !strcontains(value, "@")])
    error_message = "Settings are stored in plain text: an address that holds a password belongs into a secret."
  }
}

variable "retention" {
  description = "Days: how long deleted objects can be restored, tables of the staging dataset live where nothing else says, and events and audit logs are kept."
  type = object({
    deleted_objects = optional(number, 7)
    staging_tables  = optional(number, 60)
    logs            = optional(number, 400)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.retention.deleted_objects >= 7 && var.retention.deleted_objects <= 90
    error_message = "Cloud Storage restores deleted objects for 7 to 90 days."
  }
  validation {
    condition     = var.retention.staging_tables >= 1 && var.retention.logs >= 1 && var.retention.logs <= 3650
    error_message = "Tables live for a day at least, and logs for 1 to 3650 days."
  }
}

variable "key_protection" {
  description = "Where keys are kept: SOFTWARE, or HSM for a hardware module."
  type        = string
  default     = "SOFTWARE"
  nullable    = false

  validation {
    condition     = contains(["SOFTWARE", "HSM"], var.key_protection)
    error_message = "Keys are kept in SOFTWARE or in an HSM."
  }
}
