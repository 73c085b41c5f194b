# What the module promises and what it refuses, without AWS.

mock_provider "aws" {}

variables {
  cluster_id                 = "c-abcdefghijkl"
  engine_version             = "17.5"
  min_acu                    = 0
  max_acu                    = 4
  seconds_until_auto_pause   = 600
  backup_retention_days      = 7
  instance_count             = 2
  vpc_id                     = "vpc-1"
  subnet_ids                 = ["subnet-1", "subnet-2"]
  allowed_security_group_ids = ["sg-1"]
  final_snapshot_identifier  = "c-abcdefghijkl-final-g1"
  operation_id               = "42"
  isolation                  = "dedicated"
  environment                = "test"
  app_role_arn               = "arn:aws:iam::123456789012:role/app-task"
  permissions_boundary_arn   = "arn:aws:iam::123456789012:policy/tenant-boundary"
}

run "keeps_data_safe" {
  command = plan

  assert {
    condition     = aws_rds_cluster.this.deletion_protection && !aws_rds_cluster.this.skip_final_snapshot
    error_message = "A cluster must be protected, and leave a snapshot behind."
  }

  assert {
    condition     = aws_rds_cluster.this.storage_encrypted && aws_kms_key.this.enable_key_rotation
    error_message = "Storage must be encrypted with a key that rotates."
  }

  assert {
    condition     = aws_rds_cluster.this.manage_master_user_password && aws_rds_cluster.this.master_password == null
    error_message = "The master's password must stay out of the state."
  }

  assert {
    condition     = aws_rds_cluster.this.copy_tags_to_snapshot && aws_rds_cluster.this.final_snapshot_identifier == "c-abcdefghijkl-final-g1"
    error_message = "The final snapshot must be ours by name and tags."
  }
}

run "opens_one_port_to_named_groups" {
  command = plan

  assert {
    condition = length(aws_security_group.this.ingress) == 1 && alltrue([
      for rule in aws_security_group.this.ingress :
      rule.from_port == 5432 && rule.to_port == 5432 && rule.security_groups == toset(["sg-1"]) && length(coalesce(rule.cidr_blocks, [])) == 0
    ])
    error_message = "Only the named groups may reach port 5432."
  }
}

run "names_everything_after_the_cluster" {
  command = plan

  assert {
    condition     = keys(aws_rds_cluster_instance.this) == ["1", "2"] && aws_rds_cluster_instance.this["2"].identifier == "c-abcdefghijkl-2"
    error_message = "Instances must be numbered from 1."
  }

  assert {
    condition     = alltrue([for tags in [aws_kms_key.this.tags, aws_rds_cluster.this.tags, aws_security_group.this.tags] : tags.cluster == "c-abcdefghijkl" && tags.operation == "42"])
    error_message = "Tags must name the cluster and the operation."
  }
}

run "makes_a_subnet_group_of_its_own" {
  command = plan

  assert {
    condition     = length(aws_db_subnet_group.this) == 1 && aws_db_subnet_group.this[0].name == "c-abcdefghijkl" && aws_rds_cluster.this.db_subnet_group_name == "c-abcdefghijkl"
    error_message = "Without a shared group the cluster must lie in one of its own."
  }
}

run "lies_in_a_shared_subnet_group" {
  command = plan

  variables {
    db_subnet_group_name = "platform-databases"
  }

  assert {
    condition     = length(aws_db_subnet_group.this) == 0 && aws_rds_cluster.this.db_subnet_group_name == "platform-databases" && alltrue([for instance in aws_rds_cluster_instance.this : instance.db_subnet_group_name == "platform-databases"])
    error_message = "With a shared group none is made, and cluster and instances lie in it."
  }
}

run "pauses_only_from_zero" {
  command = plan

  variables {
    min_acu = 0.5
  }

  expect_failures = [var.seconds_until_auto_pause]
}

run "takes_a_cluster_that_never_pauses" {
  command = plan

  variables {
    min_acu                  = 0.5
    seconds_until_auto_pause = null
  }

  assert {
    condition     = aws_rds_cluster.this.serverlessv2_scaling_configuration[0].min_capacity == 0.5
    error_message = "The least capacity must be the plan's."
  }
}

run "refuses_what_rds_would_refuse_later" {
  command = plan

  variables {
    cluster_id                 = "c--bad"
    max_acu                    = 300
    backup_retention_days      = 36
    instance_count             = 0
    vpc_id                     = "default"
    subnet_ids                 = ["subnet-1", "subnet-1"]
    allowed_security_group_ids = []
    final_snapshot_identifier  = "a--b"
    operation_id               = ""
    isolation                  = "both"
    environment                = "Test"
    app_role_arn               = "app-task"
    permissions_boundary_arn   = "boundary"
  }

  expect_failures = [
    var.cluster_id,
    var.max_acu,
    var.backup_retention_days,
    var.instance_count,
    var.vpc_id,
    var.subnet_ids,
    var.allowed_security_group_ids,
    var.final_snapshot_identifier,
    var.operation_id,
    var.isolation,
    var.environment,
    var.app_role_arn,
    var.permissions_boundary_arn,
  ]
}

run "refuses_an_engine_that_takes_plain_connections" {
  command = plan

  variables {
    engine_version = "16.4"
  }

  expect_failures = [var.engine_version]
}

run "takes_an_older_engine_with_a_group_that_forces_tls" {
  command = plan

  variables {
    engine_version               = "16.4"
    cluster_parameter_group_name = "platform-aurora-postgresql16"
  }

  assert {
    condition     = aws_rds_cluster.this.db_cluster_parameter_group_name == "platform-aurora-postgresql16"
    error_message = "The shared parameter group must be used."
  }
}

run "makes_an_empty_cluster_unless_told" {
  command = plan

  assert {
    condition     = length(aws_rds_cluster.this.restore_to_point_in_time) == 0 && aws_rds_cluster.this.snapshot_identifier == null && aws_rds_cluster.this.iam_database_authentication_enabled
    error_message = "A cluster without an origin must be empty."
  }
}

run "restores_a_moment" {
  command = plan

  variables {
    origin = { cluster_id = "c-mmmmmmmmmmmm", at = "2026-11-24T10:00:00Z" }
  }

  assert {
    condition = (
      aws_rds_cluster.this.restore_to_point_in_time[0].source_cluster_identifier == "c-mmmmmmmmmmmm" &&
      aws_rds_cluster.this.restore_to_point_in_time[0].restore_to_time == "2026-11-24T10:00:00Z" &&
      aws_rds_cluster.this.restore_to_point_in_time[0].restore_type == "full-copy" &&
      aws_rds_cluster.this.snapshot_identifier == null
    )
    error_message = "The cluster must have the rows of that moment."
  }

  assert {
    condition     = aws_rds_cluster.this.manage_master_user_password && aws_rds_cluster.this.deletion_protection && !aws_rds_cluster.this.iam_database_authentication_enabled
    error_message = "A restored cluster must be guarded like any, and let nobody in by IAM."
  }
}

run "restores_a_snapshot" {
  command = plan

  variables {
    origin = { cluster_id = "c-mmmmmmmmmmmm", snapshot = "rds:c-mmmmmmmmmmmm-2026-11-24-03-07" }
  }

  assert {
    condition     = aws_rds_cluster.this.snapshot_identifier == "rds:c-mmmmmmmmmmmm-2026-11-24-03-07" && length(aws_rds_cluster.this.restore_to_point_in_time) == 0
    error_message = "The cluster must have the rows of the snapshot."
  }
}

run "refuses_a_moment_and_a_snapshot" {
  command = plan

  variables {
    origin = { cluster_id = "c-mmmmmmmmmmmm", at = "2026-11-24T10:00:00Z", snapshot = "nightly" }
  }

  expect_failures = [var.origin]
}

run "refuses_an_origin_without_either" {
  command = plan

  variables {
    origin = { cluster_id = "c-mmmmmmmmmmmm" }
  }

  expect_failures = [var.origin]
}

run "refuses_a_moment_without_a_zone" {
  command = plan

  variables {
    origin = { cluster_id = "c-mmmmmmmmmmmm", at = "2026-11-24 10:00" }
  }

  expect_failures = [var.origin]
}

run "refuses_itself_as_its_origin" {
  command = plan

  variables {
    origin = { cluster_id = "c-abcdefghijkl", snapshot = "nightly" }
  }

  expect_failures = [var.origin]
}

run "only_the_application_assumes_the_role_and_names_a_placement_alone" {
  command = plan

  assert {
    condition = jsondecode(aws_iam_role.this.assume_role_policy).Statement == [{
      Effect    = "Allow"
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Principal = { AWS = "arn:aws:iam::123456789012:role/app-task" }
      Condition = {
        StringLike                  = { "aws:RequestTag/placement" = "?*" }
        "ForAllValues:StringEquals" = { "aws:TagKeys" = ["placement"] }
      }
    }]
    error_message = "Only the application's role may assume the cluster's, with the tag `placement` and no other."
  }

  assert {
    condition     = aws_iam_role.this.name == "c-abcdefghijkl" && aws_iam_role.this.permissions_boundary == "arn:aws:iam::123456789012:policy/tenant-boundary" && !contains(keys(aws_iam_role.this.tags), "placement")
    error_message = "The role must be the cluster's, stand within the boundary, and bear no tag of a placement."
  }
}

run "the_role_opens_what_bears_its_sessions_tag_and_no_more" {
  command = plan

  assert {
    condition = jsondecode(aws_iam_role_policy.this.policy).Statement == [
      {
        Sid      = "ReadOwnSecret"
        Effect   = "Allow"
        Action   = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"]
        Resource = "arn:aws:secretsmanager:*:*:secret:placements/*/app-??????"
        Condition = {
          StringEquals = {
            "secretsmanager:ResourceTag/cluster"   = "c-abcdefghijkl"
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
    error_message = "The role must open the application's secret of its session's placement and nothing else."
  }
}
