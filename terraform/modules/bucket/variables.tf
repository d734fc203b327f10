variable "project" {
  description = "Project of the bucket."
  type        = string
}

variable "name" {
  description = "The bucket's name, unique in the world."
  type        = string
}

variable "location" {
  description = "Location of the bucket: that of whoever reads it most."
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

variable "soft_delete_days" {
  description = "Days for which deleted objects can be restored."
  type        = number
  default     = 7
  nullable    = false
}

variable "object_retention" {
  description = "Whether single objects can be locked until a day; cannot be taken back."
  type        = bool
  default     = false
  nullable    = false
}

variable "lifecycle_rules" {
  description = "Rules in the words of the Cloud Storage API, of which those that are used here are known."
  type = list(object({
    action = object({ type = string })
    condition = object({
      age                     = optional(number)
      daysSinceCustomTime     = optional(number)
      daysSinceNoncurrentTime = optional(number)
      matchesPrefix           = optional(list(string))
      matchesSuffix           = optional(list(string))
    })
  }))
  default  = []
  nullable = false
}

variable "iam" {
  description = "Who may do what with all of it: ROLE => [MEMBERS], all of them."
  type        = map(list(string))
  default     = {}
  nullable    = false
}

variable "iam_where" {
  description = "Who may do what with some of it, by the title of the condition."
  type = map(object({
    role        = string
    members     = list(string)
    description = string
    expression  = string
  }))
  default  = {}
  nullable = false
}
