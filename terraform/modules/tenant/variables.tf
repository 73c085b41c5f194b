variable "tenant_id" {
  description = "The tenant's immutable id."
  type        = string

  validation {
    condition     = can(regex("^t-[a-z2-7]{12}$", var.tenant_id))
    error_message = "tenant_id: expected t- and 12 characters of a-z and 2-7."
  }
}

variable "placement_key" {
  description = "The tenant's id and the number of its placement; it is the secrets' tag."
  type        = string

  validation {
    condition     = can(regex("^p-[a-z2-7]{12}$", var.placement_key))
    error_message = "placement_key: expected p- and 12 characters of a-z and 2-7."
  }
}

variable "cluster_id" {
  description = "The cluster on which the placement lives."
  type        = string

  validation {
    condition     = can(regex("^c-[a-z2-7]{12}$", var.cluster_id))
    error_message = "cluster_id: expected c- and 12 characters of a-z and 2-7."
  }
}

variable "app_secret_name" {
  description = "The secret that holds the application's database login."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9/_+=.@-]{1,500}$", var.app_secret_name))
    error_message = "app_secret_name: expected 1 to 500 letters, digits and /_+=.@-"
  }
}

variable "migrator_secret_name" {
  description = "The secret that holds the schema migrator's database login; no session of the application can read it."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9/_+=.@-]{1,500}$", var.migrator_secret_name)) && var.migrator_secret_name != var.app_secret_name
    error_message = "migrator_secret_name: expected 1 to 500 letters, digits and /_+=.@-, and another name than app_secret_name."
  }
}

variable "secrets_kms_key_arn" {
  description = "A key of your own for the secrets; null takes the account's aws/secretsmanager."
  type        = string
  default     = null

  validation {
    condition     = var.secrets_kms_key_arn == null ? true : can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.secrets_kms_key_arn))
    error_message = "secrets_kms_key_arn: expected the ARN of a KMS key, or null."
  }
}

variable "recovery_window_days" {
  description = "How long a deleted secret can be restored; its name stays taken that long."
  type        = number

  validation {
    condition     = var.recovery_window_days >= 7 && var.recovery_window_days <= 30 && floor(var.recovery_window_days) == var.recovery_window_days
    error_message = "recovery_window_days: expected a whole number from 7 to 30."
  }
}

variable "operation_id" {
  description = "The operation that makes the resources; it stays on them as a tag."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9._:-]{1,64}$", var.operation_id))
    error_message = "operation_id: expected 1 to 64 letters, digits, dots, colons, hyphens or underscores."
  }
}

variable "environment" {
  description = "The installation that owns the resources, such as production."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.environment))
    error_message = "environment: expected 1 to 31 lower-case letters, digits and hyphens, a letter first."
  }
}
