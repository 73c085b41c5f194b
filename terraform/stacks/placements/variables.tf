variable "cluster_id" {
  description = "The cluster on which the placements live."
  type        = string
}

variable "placements" {
  description = "The ids of the placements. One that was purged is never used again: the name of its secret stays taken."
  type        = set(string)
}

variable "secrets_kms_key_arn" {
  description = "A key of your own for the secrets; null takes the account's aws/secretsmanager."
  type        = string
  default     = null
}

variable "recovery_window_days" {
  description = "How long a deleted secret can be restored; its name stays taken that long."
  type        = number
}

variable "operation_id" {
  description = "The operation that makes the resources; it stays on them as a tag."
  type        = string
}

variable "environment" {
  description = "The installation that owns the resources, such as production."
  type        = string
}
