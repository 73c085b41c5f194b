output "app_secret_arns" {
  description = "By placement, the secret of the application's database login."
  value       = { for placement, secret in aws_secretsmanager_secret.app : placement => secret.arn }
}
