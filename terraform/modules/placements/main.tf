# What the placements on one cluster own outside their databases: a secret container each. It stays empty here:
# the worker writes its value, so that no password is ever in a plan or a state. Its tags `placement` and
# `cluster` say whose session may open it (modules/cluster).

locals {
  tags = {
    managed_by  = "tenant-controlplane"
    environment = var.environment
    cluster     = var.cluster_id
    operation   = var.operation_id
  }
}

resource "aws_secretsmanager_secret" "app" {
  for_each = var.placements

  name                    = "placements/${each.key}/app"
  description             = "The application's database login of ${each.key}"
  kms_key_id              = var.secrets_kms_key_arn
  recovery_window_in_days = var.recovery_window_days
  tags                    = merge(local.tags, { placement = each.key })

  lifecycle {
    # `operation` names the operation that made the resource; later ones must not rewrite it.
    ignore_changes = [tags["operation"]]
  }
}
