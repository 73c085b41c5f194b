output "endpoint" {
  description = "The writer's host name."
  value       = module.cluster.endpoint
}

output "reader_endpoint" {
  description = "The host name that spreads over the readers; the writer where there are none."
  value       = module.cluster.reader_endpoint
}

output "port" {
  description = "The port of both endpoints."
  value       = module.cluster.port
}

output "resource_id" {
  description = "The immutable id (cluster-…) that IAM database policies name."
  value       = module.cluster.resource_id
}

output "master_secret_arn" {
  description = "The secret in which RDS keeps the master's password."
  value       = module.cluster.master_secret_arn
}

output "kms_key_arn" {
  description = "The key that encrypts the cluster's storage and snapshots."
  value       = module.cluster.kms_key_arn
}

output "security_group_id" {
  description = "The cluster's security group."
  value       = module.cluster.security_group_id
}

output "role_arn" {
  description = "The role that opens the secret of the placement with which its session is tagged."
  value       = module.cluster.role_arn
}
