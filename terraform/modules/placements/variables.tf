variable "cluster_id" {
  description = "The cluster on which the placements live."
  type        = string

  validation {
    condition     = can(regex("^c-[a-z2-7]{12}$", var.cluster_id))
    error_message = "cluster_id: expected c- and 12 characters of a-z and 2-7."
  }
}

variable "placements" {
  description = "The ids of the placements. One that was purged is never used again: the name of its secret stays taken."
  type        = set(string)
  nullable    = false

  validation {
    condition     = alltrue([for id in var.placements : can(regex("^p-[a-z2-7]{12}$", id))])
    error_message = "placements: expected of each p- and 12 characters of a-z and 2-7."
  }

  validation {
    condition     = length(var.placements) <= 100
    error_message = "placements: expected at most 100, since a plan reads the policy of each one's secret."
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
