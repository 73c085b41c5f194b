# What the module promises and what it refuses, without AWS.

mock_provider "aws" {
  mock_resource "aws_secretsmanager_secret" {
    defaults = {
      arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:placements/mock-abcdef"
    }
  }
}

variables {
  tenant_id            = "t-abcdefghijkl"
  placement_key        = "p-abcdefghijkl"
  cluster_id           = "c-abcdefghijkl"
  app_secret_name      = "placements/p-abcdefghijkl/app"
  migrator_secret_name = "placements/p-abcdefghijkl/migrator"
  recovery_window_days = 30
  operation_id         = "42"
  environment          = "test"
}

run "secrets_say_whose_session_may_open_them" {
  assert {
    condition = alltrue([for tags in [aws_secretsmanager_secret.app.tags, aws_secretsmanager_secret.migrator.tags] :
      tags.placement == "p-abcdefghijkl" && tags.cluster == "c-abcdefghijkl" && tags.tenant == "t-abcdefghijkl"
    ])
    error_message = "The tags must name placement, cluster and tenant."
  }
}

run "secrets_are_empty_and_restorable" {
  variables {
    secrets_kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-1111-1111-1111-111111111111"
  }

  assert {
    condition     = aws_secretsmanager_secret.app.recovery_window_in_days == 30 && aws_secretsmanager_secret.app.kms_key_id == var.secrets_kms_key_arn
    error_message = "A deleted secret must be restorable, and under the key that was given."
  }
}

run "refuses_bad_input" {
  command = plan

  variables {
    placement_key        = "t-zzzzzzzzzzzz-1"
    cluster_id           = "cluster"
    app_secret_name      = "placements/a b"
    recovery_window_days = 6
    operation_id         = "a b"
    environment          = ""
  }

  expect_failures = [
    var.placement_key,
    var.cluster_id,
    var.app_secret_name,
    var.recovery_window_days,
    var.operation_id,
    var.environment,
  ]
}

run "keeps_the_two_logins_apart" {
  command = plan

  variables {
    migrator_secret_name = "placements/p-abcdefghijkl/app"
  }

  expect_failures = [var.migrator_secret_name]
}
