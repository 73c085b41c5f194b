# Region, credentials and endpoint come from the environment: they are nobody's input.
provider "aws" {}

module "cluster" {
  source = "../../modules/cluster"

  cluster_id                   = var.cluster_id
  engine_version               = var.engine_version
  cluster_parameter_group_name = var.cluster_parameter_group_name
  min_acu                      = var.min_acu
  max_acu                      = var.max_acu
  seconds_until_auto_pause     = var.seconds_until_auto_pause
  backup_retention_days        = var.backup_retention_days
  instance_count               = var.instance_count
  vpc_id                       = var.vpc_id
  subnet_ids                   = var.subnet_ids
  db_subnet_group_name         = var.db_subnet_group_name
  allowed_security_group_ids   = var.allowed_security_group_ids
  final_snapshot_identifier    = var.final_snapshot_identifier
  origin                       = var.origin
  deletion_protection          = var.deletion_protection
  skip_final_snapshot          = var.skip_final_snapshot
  log_retention_days           = var.log_retention_days
  operation_id                 = var.operation_id
  isolation                    = var.isolation
  environment                  = var.environment
  app_role_arn                 = var.app_role_arn
  permissions_boundary_arn     = var.permissions_boundary_arn
}
