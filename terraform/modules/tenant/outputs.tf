output "app_secret_arn" {
  description = "The secret of the application's database login."
  value       = aws_secretsmanager_secret.app.arn
}

output "migrator_secret_arn" {
  description = "The secret of the schema migrator's database login."
  value       = aws_secretsmanager_secret.migrator.arn
}
