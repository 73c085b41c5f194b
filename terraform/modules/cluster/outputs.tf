output "endpoint" {
  description = "The writer's host name."
  value       = aws_rds_cluster.this.endpoint
}

output "reader_endpoint" {
  description = "The host name that spreads over the readers; the writer where there are none."
  value       = aws_rds_cluster.this.reader_endpoint
}

output "port" {
  description = "The port of both endpoints."
  value       = aws_rds_cluster.this.port
}

output "resource_id" {
  description = "The immutable id (cluster-…) that IAM database policies name."
  value       = aws_rds_cluster.this.cluster_resource_id
}

output "master_secret_arn" {
  description = "The secret in which RDS keeps the master's password."
  value       = aws_rds_cluster.this.master_user_secret[0].secret_arn
}

output "kms_key_arn" {
  description = "The key that encrypts the cluster's storage and snapshots."
  value       = aws_kms_key.this.arn
}

output "security_group_id" {
  description = "The cluster's security group."
  value       = aws_security_group.this.id
}

output "role_arn" {
  description = "The role that opens the secret of the placement with which its session is tagged."
  value       = aws_iam_role.this.arn
}
