# What the module promises and what it refuses, without AWS.

mock_provider "aws" {
  mock_resource "aws_secretsmanager_secret" {
    defaults = {
      arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:tenants/mock-abcdef"
    }
  }
}

variables {
  tenant_id                = "t-abcdefghijkl"
  placement_key            = "t-abcdefghijkl-1"
  cluster_id               = "c-abcdefghijkl"
  app_secret_name          = "tenants/t-abcdefghijkl/1/app"
  migrator_secret_name     = "tenants/t-abcdefghijkl/1/migrator"
  app_role_arn             = "arn:aws:iam::123456789012:role/app-task"
  permissions_boundary_arn = "arn:aws:iam::123456789012:policy/tenant-boundary"
  recovery_window_days     = 30
  operation_id             = "42"
  environment              = "test"
}

run "role_reads_one_secret_and_no_more" {
  assert {
    condition = jsondecode(aws_iam_role_policy.read_app_secret.policy).Statement == [{
      Sid      = "ReadOwnSecret"
      Effect   = "Allow"
      Action   = ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"]
      Resource = aws_secretsmanager_secret.app.arn
    }]
    error_message = "The role must read the application's secret and nothing else."
  }

  assert {
    condition     = aws_iam_role.this.permissions_boundary == "arn:aws:iam::123456789012:policy/tenant-boundary"
    error_message = "The role must stand within the boundary."
  }
}

run "only_the_application_assumes_the_role_and_names_the_tenant" {
  assert {
    condition = jsondecode(aws_iam_role.this.assume_role_policy).Statement == [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { AWS = "arn:aws:iam::123456789012:role/app-task" }
      Condition = { StringEquals = { "sts:ExternalId" = "t-abcdefghijkl" } }
    }]
    error_message = "Only the application's role may assume the tenant's, and it must name the tenant."
  }
}

run "decrypts_with_a_key_of_ones_own_for_this_secret_alone" {
  variables {
    secrets_kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-1111-1111-1111-111111111111"
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.read_app_secret.policy).Statement[1].Condition.StringEquals["kms:EncryptionContext:SecretARN"] == aws_secretsmanager_secret.app.arn
    error_message = "The key may be used for this secret alone."
  }
}

run "refuses_bad_input" {
  command = plan

  variables {
    placement_key            = "t-zzzzzzzzzzzz-1"
    cluster_id               = "cluster"
    app_secret_name          = "tenants/a b"
    app_role_arn             = "app-task"
    permissions_boundary_arn = "boundary"
    recovery_window_days     = 6
    operation_id             = "a b"
    environment              = ""
  }

  expect_failures = [
    var.placement_key,
    var.cluster_id,
    var.app_secret_name,
    var.app_role_arn,
    var.permissions_boundary_arn,
    var.recovery_window_days,
    var.operation_id,
    var.environment,
  ]
}

run "keeps_the_two_logins_apart" {
  command = plan

  variables {
    migrator_secret_name = "tenants/t-abcdefghijkl/1/app"
  }

  expect_failures = [var.migrator_secret_name]
}
