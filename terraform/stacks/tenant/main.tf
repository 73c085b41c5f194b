# Region, credentials and endpoint come from the environment: they are nobody's input.
provider "aws" {}

module "tenant" {
  source = "../../modules/tenant"

  tenant_id            = var.tenant_id
  placement_key        = var.placement_key
  cluster_id           = var.cluster_id
  app_secret_name      = var.app_secret_name
  migrator_secret_name = var.migrator_secret_name
  secrets_kms_key_arn  = var.secrets_kms_key_arn
  recovery_window_days = var.recovery_window_days
  operation_id         = var.operation_id
  environment          = var.environment
}
