variable "cluster_id" {
  description = "The cluster's immutable id; it is the RDS identifier and part of every other name."
  type        = string
}

variable "engine_version" {
  description = "The Aurora PostgreSQL version, with its minor: the default parameter group of 17 and later refuses connections without TLS."
  type        = string
}

variable "cluster_parameter_group_name" {
  description = "A parameter group shared by all clusters of an environment; null takes the engine's default. Never one per cluster: an account has 50, and that quota is not raised."
  type        = string
  default     = null
}

variable "min_acu" {
  description = "The least capacity in Aurora capacity units, in halves; 0 lets the cluster pause."
  type        = number
}

variable "max_acu" {
  description = "The greatest capacity in Aurora capacity units, in halves."
  type        = number
}

variable "seconds_until_auto_pause" {
  description = "Idle time before the cluster pauses, where min_acu is 0; null takes AWS's 300 seconds."
  type        = number
  default     = null
}

variable "backup_retention_days" {
  description = "How many days of point-in-time recovery are kept."
  type        = number
}

variable "instance_count" {
  description = "How many instances; the first is the writer, the others stand by and serve reads."
  type        = number
}

variable "vpc_id" {
  description = "The VPC of the cluster's security group."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets in at least two availability zones."
  type        = list(string)
}

variable "db_subnet_group_name" {
  description = "A subnet group shared by all clusters of an environment; null makes one of the cluster's own in subnet_ids. An account has 50. It decides at creation: RDS moves no cluster to another group."
  type        = string
  default     = null
}

variable "allowed_security_group_ids" {
  description = "The security groups that may open connections to port 5432; nothing else may."
  type        = list(string)
}

variable "final_snapshot_identifier" {
  description = "What the snapshot taken at deletion is called; it carries the cluster's generation and the operation, so that no second deletion finds it taken. Keep it unchanged while the cluster lives: a new value is a change of the state."
  type        = string
}

variable "origin" {
  description = "What the cluster is made from instead of nothing: cluster_id as it was at a moment (UTC), or a snapshot of it. It decides at creation and never again."
  type = object({
    cluster_id = string
    at         = optional(string)
    snapshot   = optional(string)
  })
  default = null
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
}

variable "operation_id" {
  description = "The operation that makes the resources; it stays on them as a tag."
  type        = string
}

variable "isolation" {
  description = "Whether one tenant has the cluster to itself or several share it."
  type        = string
}

variable "environment" {
  description = "The installation that owns the resources, such as production."
  type        = string
}

variable "app_role_arn" {
  description = "The application's task role: the only principal that may assume the cluster's role."
  type        = string
}

variable "permissions_boundary_arn" {
  description = "The policy beyond which no cluster's role can reach, whatever else is attached to it."
  type        = string
}
