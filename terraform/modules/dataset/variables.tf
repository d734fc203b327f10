variable "project" {
  description = "Project of the dataset."
  type        = string
}

variable "name" {
  description = "The dataset's id."
  type        = string
}

variable "description" {
  description = "What it holds, in a sentence."
  type        = string
}

variable "location" {
  description = "BigQuery location."
  type        = string
}

variable "key" {
  description = "Id of the key that encrypts it."
  type        = string
}

variable "protected" {
  description = "Whether Terraform refuses to delete it."
  type        = bool
  default     = true
  nullable    = false
}

variable "table_days" {
  description = "Days after which its tables vanish, where they do not say otherwise; null: never."
  type        = number
  default     = null
}

variable "tables" {
  description = "Its tables by name, partitioned by day."
  type = map(object({
    description = optional(string)
    schema      = string # JSON
    partition   = string
    clustering  = list(string)
  }))
  default  = {}
  nullable = false
}

variable "iam" {
  description = "Who may do what with all of it: ROLE => [MEMBERS], all of them."
  type        = map(list(string))
  default     = {}
  nullable    = false
}
