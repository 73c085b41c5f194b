# What one placement of a tenant owns outside its database: two secret containers. They stay empty here:
# the worker writes their values, so that no password is ever in a plan or a state. Their tags `placement`
# and `cluster` say whose session may open the application's (modules/cluster).

locals {
  tags = {
    managed_by  = "tenant-controlplane"
    environment = var.environment
    tenant      = var.tenant_id
    placement   = var.placement_key
    cluster     = var.cluster_id
    operation   = var.operation_id
  }
}

resource "aws_secretsmanager_secret" "app" {
  name                    = var.app_secret_name
  description             = "The application's database login of ${var.placement_key}"
  kms_key_id              = var.secrets_kms_key_arn
  recovery_window_in_days = var.recovery_window_days
  tags                    = local.tags

  lifecycle {
    # `operation` names the operation that made the resource; later ones must not rewrite it.
    ignore_changes = [tags["operation"]]
  }
}

resource "aws_secretsmanager_secret" "migrator" {
  name                    = var.migrator_secret_name
  description             = "The schema migrator's database login of ${var.placement_key}"
  kms_key_id              = var.secrets_kms_key_arn
  recovery_window_in_days = var.recovery_window_days
  tags                    = local.tags

  lifecycle {
    ignore_changes = [tags["operation"]]
  }
}
