# What one placement of a tenant owns outside its database: two secret containers and the role that
# may open one of them. The containers stay empty here: the worker writes their values, so that no
# password is ever in a plan or a state.

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

# Policies are written here, not as `aws_iam_policy_document`: a data source that waits for a resource
# is read again at every change of it, and the plan then shows a policy update that is none.
locals {
  # The application assumes the role to read its tenant's login. It has to name the tenant once more,
  # as external id: code that mixes two tenants up is refused by AWS instead of reading the other's.
  trust = {
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { AWS = var.app_role_arn }
      Condition = { StringEquals = { "sts:ExternalId" = var.tenant_id } }
    }]
  }

  read_app_secret = {
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid      = "ReadOwnSecret"
        Effect   = "Allow"
        Action   = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"]
        Resource = aws_secretsmanager_secret.app.arn
      }],
      [for key in compact([var.secrets_kms_key_arn]) : {
        Sid       = "DecryptOwnSecret"
        Effect    = "Allow"
        Action    = "kms:Decrypt"
        Resource  = key
        Condition = { StringEquals = { "kms:EncryptionContext:SecretARN" = aws_secretsmanager_secret.app.arn } }
      }],
    )
  }
}

resource "aws_iam_role" "this" {
  name                 = var.placement_key
  description          = "Reads the application's database login of ${var.placement_key}"
  assume_role_policy   = jsonencode(local.trust)
  permissions_boundary = var.permissions_boundary_arn
  max_session_duration = 3600
  tags                 = local.tags

  lifecycle {
    ignore_changes = [tags["operation"]]
  }
}

resource "aws_iam_role_policy" "read_app_secret" {
  name   = "read-app-secret"
  role   = aws_iam_role.this.name
  policy = jsonencode(local.read_app_secret)
}
