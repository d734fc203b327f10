variable "name" {
  description = "Name of the key: that of the service whose data it encrypts."
  type        = string
}

variable "key_ring" {
  description = "Id of the key ring, in the location of what is encrypted."
  type        = string
}

variable "protection" {
  description = "SOFTWARE or HSM."
  type        = string
}

variable "iam" {
  description = "Who may use it: ROLE => [MEMBERS], all of them."
  type        = map(list(string))
  default     = {}
  nullable    = false
}
