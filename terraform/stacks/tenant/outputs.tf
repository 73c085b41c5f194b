output "app_secret_arn" {
  description = "The secret of the application's database login."
  value       = module.tenant.app_secret_arn
}

output "migrator_secret_arn" {
  description = "The secret of the schema migrator's database login."
  value       = module.tenant.migrator_secret_arn
}
