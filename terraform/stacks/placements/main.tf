# Region, credentials and endpoint come from the environment: they are nobody's input.
provider "aws" {}

module "placements" {
  source = "../../modules/placements"

  cluster_id           = var.cluster_id
  placements           = var.placements
  secrets_kms_key_arn  = var.secrets_kms_key_arn
  recovery_window_days = var.recovery_window_days
  operation_id         = var.operation_id
  environment          = var.environment
}
