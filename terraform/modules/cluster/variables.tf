variable "cluster_id" {
  description = "The cluster's immutable id; it is the RDS identifier and part of every other name."
  type        = string

  validation {
    condition     = can(regex("^c-[a-z2-7]{12}$", var.cluster_id))
    error_message = "cluster_id: expected c- and 12 characters of a-z and 2-7."
  }
}

variable "engine_version" {
  description = "The Aurora PostgreSQL version, with its minor: the default parameter group of 17 and later refuses connections without TLS."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{2}[.][0-9]{1,2}$", var.engine_version))
    error_message = "engine_version: expected a version with its minor, such as 17.5."
  }

  validation {
    condition     = try(tonumber(split(".", var.engine_version)[0]), 0) >= 17 || var.cluster_parameter_group_name != null
    error_message = "engine_version: expected 17 or later, or a cluster_parameter_group_name that sets rds.force_ssl."
  }
}

variable "cluster_parameter_group_name" {
  description = "A parameter group shared by all clusters of an environment; null takes the engine's default. Never one per cluster: an account has 50, and that quota is not raised."
  type        = string
  default     = null
}

variable "min_acu" {
  description = "The least capacity in Aurora capacity units, in halves; 0 lets the cluster pause."
  type        = number

  validation {
    condition     = var.min_acu >= 0 && var.min_acu <= 256 && floor(var.min_acu * 2) == var.min_acu * 2
    error_message = "min_acu: expected 0 to 256 in steps of 0.5."
  }
}

variable "max_acu" {
  description = "The greatest capacity in Aurora capacity units, in halves."
  type        = number

  validation {
    condition     = var.max_acu >= 1 && var.max_acu <= 256 && floor(var.max_acu * 2) == var.max_acu * 2
    error_message = "max_acu: expected 1 to 256 in steps of 0.5."
  }

  validation {
    condition     = var.max_acu >= var.min_acu
    error_message = "max_acu: expected at least min_acu."
  }
}

variable "seconds_until_auto_pause" {
  description = "Idle time before the cluster pauses, where min_acu is 0; null takes AWS's 300 seconds."
  type        = number
  default     = null

  validation {
    condition     = var.seconds_until_auto_pause == null ? true : var.seconds_until_auto_pause >= 300 && var.seconds_until_auto_pause <= 86400
    error_message = "seconds_until_auto_pause: expected 300 to 86400, or null."
  }

  validation {
    condition     = var.seconds_until_auto_pause == null || var.min_acu == 0
    error_message = "seconds_until_auto_pause: expected null unless min_acu is 0."
  }
}

variable "backup_retention_days" {
  description = "How many days of point-in-time recovery are kept."
  type        = number

  validation {
    condition     = var.backup_retention_days >= 1 && var.backup_retention_days <= 35 && floor(var.backup_retention_days) == var.backup_retention_days
    error_message = "backup_retention_days: expected a whole number from 1 to 35."
  }
}

variable "instance_count" {
  description = "How many instances; the first is the writer, the others stand by and serve reads."
  type        = number

  validation {
    condition     = var.instance_count >= 1 && var.instance_count <= 16 && floor(var.instance_count) == var.instance_count
    error_message = "instance_count: expected a whole number from 1 to 16."
  }
}

variable "vpc_id" {
  description = "The VPC of the cluster's security group."
  type        = string

  validation {
    condition     = startswith(var.vpc_id, "vpc-")
    error_message = "vpc_id: expected an id that begins with vpc-."
  }
}

variable "subnet_ids" {
  description = "Private subnets in at least two availability zones."
  type        = list(string)

  validation {
    condition     = length(distinct(var.subnet_ids)) >= 2 && alltrue([for id in var.subnet_ids : startswith(id, "subnet-")])
    error_message = "subnet_ids: expected at least two ids that begin with subnet-."
  }
}

variable "db_subnet_group_name" {
  description = "A subnet group shared by all clusters of an environment; null makes one of the cluster's own in subnet_ids. An account has 50. It decides at creation: RDS moves no cluster to another group."
  type        = string
  default     = null
}

variable "allowed_security_group_ids" {
  description = "The security groups that may open connections to port 5432; nothing else may."
  type        = list(string)

  validation {
    condition     = length(var.allowed_security_group_ids) >= 1 && alltrue([for id in var.allowed_security_group_ids : startswith(id, "sg-")])
    error_message = "allowed_security_group_ids: expected at least one id that begins with sg-."
  }
}

variable "final_snapshot_identifier" {
  description = "What the snapshot taken at deletion is called; it carries the cluster's generation and the operation, so that no second deletion finds it taken. Keep it unchanged while the cluster lives: a new value is a change of the state."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z][a-zA-Z0-9-]{0,253}[a-zA-Z0-9]$", var.final_snapshot_identifier)) && !strcontains(var.final_snapshot_identifier, "--")
    error_message = "final_snapshot_identifier: expected 2 to 255 letters, digits and single hyphens, a letter first and no hyphen last."
  }
}

variable "origin" {
  description = "What the cluster is made from instead of nothing: cluster_id as it was at a moment (UTC), or a snapshot of it. It decides at creation and never again."
  type = object({
    cluster_id = string
    at         = optional(string)
    snapshot   = optional(string)
  })
  default = null

  validation {
    condition     = var.origin == null ? true : can(regex("^c-[a-z2-7]{12}$", var.origin.cluster_id)) && var.origin.cluster_id != var.cluster_id
    error_message = "origin.cluster_id: expected another cluster: c- and 12 characters of a-z and 2-7."
  }

  validation {
    condition     = var.origin == null ? true : (var.origin.at == null) != (var.origin.snapshot == null)
    error_message = "origin: expected one of at and snapshot."
  }

  validation {
    condition     = try(var.origin.at, null) == null ? true : can(regex("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$", var.origin.at))
    error_message = "origin.at: expected a moment in UTC such as 2026-11-24T10:00:00Z."
  }

  validation {
    condition     = try(var.origin.snapshot, null) == null ? true : can(regex("^(rds:|awsbackup:)?[A-Za-z][A-Za-z0-9-]{0,254}$", var.origin.snapshot))
    error_message = "origin.snapshot: expected the name of a cluster snapshot."
  }
}

variable "deletion_protection" {
  description = "RDS refuses to delete the cluster while this is on; only an approved purge turns it off."
  type        = bool
  default     = true
}

variable "skip_final_snapshot" {
  description = "Delete without a last snapshot: only for a cluster that never held a tenant."
  type        = bool
  default     = false
}

variable "log_retention_days" {
  description = "How long CloudWatch keeps the database's log."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.log_retention_days)
    error_message = "log_retention_days: expected a period that CloudWatch knows, such as 30."
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

variable "isolation" {
  description = "Whether one tenant has the cluster to itself or several share it."
  type        = string

  validation {
    condition     = contains(["dedicated", "shared"], var.isolation)
    error_message = "isolation: expected dedicated or shared."
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

variable "app_role_arn" {
  description = "The application's task role: the only principal that may assume the cluster's role."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$", var.app_role_arn))
    error_message = "app_role_arn: expected the ARN of an IAM role."
  }
}

variable "permissions_boundary_arn" {
  description = "The policy beyond which no cluster's role can reach, whatever else is attached to it."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/.+$", var.permissions_boundary_arn))
    error_message = "permissions_boundary_arn: expected the ARN of an IAM policy."
  }
}
