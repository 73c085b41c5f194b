variable "tenant_id" {
  description = "The tenant's immutable id."
  type        = string
}

variable "placement_key" {
  description = "The tenant's id and the number of its placement; it is the secrets' tag."
  type        = string
}

variable "cluster_id" {
  description = "The cluster on which the placement lives."
  type        = string
}

variable "app_secret_name" {
  description = "The secret that holds the application's database login."
  type        = string
}

variable "migrator_secret_name" {
  description = "The secret that holds the schema migrator's database login; no session of the application can read it."
  type        = string
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
