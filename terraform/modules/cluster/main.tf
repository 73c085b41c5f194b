# One Aurora PostgreSQL Serverless v2 cluster. Every name is a function of `cluster_id`, so that a
# run which follows a killed one finds, by name and tags, whatever that one had made.

locals {
  tags = {
    managed_by  = "tenant-controlplane"
    environment = var.environment
    cluster     = var.cluster_id
    isolation   = var.isolation
    operation   = var.operation_id
  }

  subnet_group = var.db_subnet_group_name == null ? aws_db_subnet_group.this[0].name : var.db_subnet_group_name
}

resource "aws_kms_key" "this" {
  description             = "Storage of cluster ${var.cluster_id}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = local.tags

  lifecycle {
    # `operation` names the operation that made the resource; later ones must not rewrite it.
    ignore_changes = [tags["operation"]]
  }
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.cluster_id}"
  target_key_id = aws_kms_key.this.key_id
}

# Rules are written in the group itself, so that one added by hand is drift that the plan shows; as
# separate resources Terraform would never see it. Aurora opens no connection of its own: no egress.
resource "aws_security_group" "this" {
  name        = var.cluster_id
  description = "PostgreSQL of cluster ${var.cluster_id}"
  vpc_id      = var.vpc_id
  tags        = local.tags

  ingress {
    description     = "PostgreSQL from the application and the control plane"
    protocol        = "tcp"
    from_port       = 5432
    to_port         = 5432
    security_groups = var.allowed_security_group_ids
  }

  egress = []

  lifecycle {
    ignore_changes = [tags["operation"]]
  }
}

resource "aws_db_subnet_group" "this" {
  count = var.db_subnet_group_name == null ? 1 : 0

  name        = var.cluster_id
  description = "Subnets of cluster ${var.cluster_id}"
  subnet_ids  = var.subnet_ids
  tags        = local.tags

  lifecycle {
    ignore_changes = [tags["operation"]]
  }
}

# RDS would make this group itself at the first line of log, untagged and kept for ever.
resource "aws_cloudwatch_log_group" "postgresql" {
  name              = "/aws/rds/cluster/${var.cluster_id}/postgresql"
  retention_in_days = var.log_retention_days
  tags              = local.tags

  lifecycle {
    ignore_changes = [tags["operation"]]
  }
}

resource "aws_rds_cluster" "this" {
  cluster_identifier = var.cluster_id
  engine             = "aurora-postgresql"
  engine_mode        = "provisioned"
  engine_version     = var.engine_version
  apply_immediately  = true
  tags               = local.tags

  serverlessv2_scaling_configuration {
    min_capacity             = var.min_acu
    max_capacity             = var.max_acu
    seconds_until_auto_pause = var.min_acu == 0 ? coalesce(var.seconds_until_auto_pause, 300) : null
  }

  # RDS makes, keeps and rotates the master's password in Secrets Manager: it never enters the state.
  # Nobody logs in to a restored cluster by IAM, and the provider would turn it on at the second apply only.
  master_username                     = "platform_master"
  manage_master_user_password         = true
  iam_database_authentication_enabled = var.origin == null

  storage_encrypted               = true
  kms_key_id                      = aws_kms_key.this.arn
  db_subnet_group_name            = local.subnet_group
  vpc_security_group_ids          = [aws_security_group.this.id]
  db_cluster_parameter_group_name = var.cluster_parameter_group_name

  backup_retention_period         = var.backup_retention_days
  copy_tags_to_snapshot           = true
  deletion_protection             = var.deletion_protection
  skip_final_snapshot             = var.skip_final_snapshot
  final_snapshot_identifier       = var.final_snapshot_identifier
  enabled_cloudwatch_logs_exports = ["postgresql"]

  # The rows of another time. Copied in full: copy-on-write takes no moment, and would share storage with
  # a cluster that is in use.
  snapshot_identifier = try(var.origin.snapshot, null)

  dynamic "restore_to_point_in_time" {
    for_each = try(var.origin.at, null) == null ? [] : [var.origin]

    content {
      source_cluster_identifier = restore_to_point_in_time.value.cluster_id
      restore_to_time           = restore_to_point_in_time.value.at
      restore_type              = "full-copy"
    }
  }

  # The alias comes first: it is how a key is found again after a run died right behind making it.
  depends_on = [aws_cloudwatch_log_group.postgresql, aws_kms_alias.this]

  lifecycle {
    # What a cluster was made from RDS does not tell: one that is adopted by name after a run was killed
    # would be planned to be replaced.
    ignore_changes = [tags["operation"], snapshot_identifier, restore_to_point_in_time]
  }
}

resource "aws_rds_cluster_instance" "this" {
  for_each = toset([for number in range(1, var.instance_count + 1) : tostring(number)])

  identifier           = "${var.cluster_id}-${each.key}"
  cluster_identifier   = aws_rds_cluster.this.id
  engine               = aws_rds_cluster.this.engine
  instance_class       = "db.serverless"
  db_subnet_group_name = local.subnet_group
  apply_immediately    = true
  tags                 = local.tags

  # The catalogue says which version runs; a minor upgrade by AWS would be drift at the next plan.
  auto_minor_version_upgrade = false

  # AWS advises 2 ACU at least beside Performance Insights; a smaller cluster would starve its tenants.
  performance_insights_enabled    = var.min_acu >= 2
  performance_insights_kms_key_id = var.min_acu >= 2 ? aws_kms_key.this.arn : null
  copy_tags_to_snapshot           = true

  lifecycle {
    ignore_changes = [tags["operation"]]
  }
}

# Policies are written here, not as `aws_iam_policy_document`: a data source that waits for a resource
# is read again at every change of it, and the plan then shows a policy update that is none.
locals {
  partition = split(":", var.app_role_arn)[1]

  # The application names the placement as the session's tag, and no other tag. `ForAllValues` alone would
  # let a session without tags through.
  trust = {
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Principal = { AWS = var.app_role_arn }
      Condition = {
        StringLike                  = { "aws:RequestTag/placement" = "?*" }
        "ForAllValues:StringEquals" = { "aws:TagKeys" = ["placement"] }
      }
    }]
  }

  # The session's tag decides which of this cluster's secrets opens, and none by another name does.
  read_own_secret = {
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "ReadOwnSecret"
        Effect   = "Allow"
        Action   = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"]
        Resource = "arn:${local.partition}:secretsmanager:*:*:secret:placements/*/app-??????"
        Condition = {
          StringEquals = {
            "secretsmanager:ResourceTag/cluster"   = var.cluster_id
            "secretsmanager:ResourceTag/placement" = "$${aws:PrincipalTag/placement}"
          }
        }
      },
      {
        Sid       = "DecryptThroughSecretsManager"
        Effect    = "Allow"
        Action    = "kms:Decrypt"
        Resource  = "*"
        Condition = { StringLike = { "kms:ViaService" = "secretsmanager.*" } }
      },
    ]
  }
}

# No tag `placement`: a role's own tag would stand in for the one that a session lacks.
resource "aws_iam_role" "this" {
  name                 = var.cluster_id
  description          = "Reads the database login of the placement that its session is tagged with"
  assume_role_policy   = jsonencode(local.trust)
  permissions_boundary = var.permissions_boundary_arn
  max_session_duration = 3600
  tags                 = local.tags

  lifecycle {
    ignore_changes = [tags["operation"]]
  }
}

resource "aws_iam_role_policy" "this" {
  name   = "read-own-secret"
  role   = aws_iam_role.this.name
  policy = jsonencode(local.read_own_secret)
}
