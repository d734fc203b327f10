variable "project" {
  description = "Project of the secret."
  type        = string
}

variable "name" {
  description = "The secret's id."
  type        = string
}

variable "location" {
  description = "Region in which it is kept."
  type        = string
}

variable "key" {
  description = "Id of the key that encrypts it."
  type        = string
}

variable "iam" {
  description = "Who may read it: ROLE => [MEMBERS], all of them."
  type        = map(list(string))
  default     = {}
  nullable    = false
}
