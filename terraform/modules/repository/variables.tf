variable "project" {
  description = "Project of the repository."
  type        = string
}

variable "location" {
  description = "Region of the repository."
  type        = string
}

variable "name" {
  description = "The repository's id."
  type        = string
}

variable "description" {
  description = "What it holds, in a sentence."
  type        = string
}

variable "format" {
  description = "DOCKER or PYTHON."
  type        = string
}

variable "key" {
  description = "Id of the key that encrypts it."
  type        = string
}

variable "public" {
  description = "Public index of which it keeps copies, such as PYPI; null: what is pushed to it."
  type        = string
  default     = null
}

variable "upstreams" {
  description = "Repositories that it shows as one, by name, the greatest priority first; null: its own."
  type        = map(object({ repository = string, priority = number }))
  default     = null
}

variable "iam" {
  description = "Who may do what with all of it: ROLE => [MEMBERS], all of them."
  type        = map(list(string))
  default     = {}
  nullable    = false
}
