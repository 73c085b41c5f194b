output "app_secret_arns" {
  description = "By placement, the secret of the application's database login."
  value       = module.placements.app_secret_arns
}
