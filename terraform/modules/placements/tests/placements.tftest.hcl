# What the module promises and what it refuses, without AWS.

mock_provider "aws" {
  mock_resource "aws_secretsmanager_secret" {
    defaults = {
      arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:placements/mock-abcdef"
    }
  }
}

variables {
  cluster_id           = "c-abcdefghijkl"
  placements           = ["p-abcdefghijkl", "p-mnopqrstuvwx"]
  recovery_window_days = 30
  operation_id         = "42"
  environment          = "test"
}

run "secrets_are_named_by_their_placement_and_say_whose_session_may_open_them" {
  assert {
    condition     = alltrue([for id in var.placements : aws_secretsmanager_secret.app[id].name == "placements/${id}/app"])
    error_message = "A secret's name must be a function of its placement's id."
  }

  assert {
    condition = alltrue([for id, secret in aws_secretsmanager_secret.app :
      secret.tags.placement == id && secret.tags.cluster == "c-abcdefghijkl" && !contains(keys(secret.tags), "tenant")
    ])
    error_message = "The tags must name placement and cluster, and no tenant."
  }

  assert {
    condition     = keys(output.app_secret_arns) == ["p-abcdefghijkl", "p-mnopqrstuvwx"]
    error_message = "There must be an ARN for each placement."
  }
}

run "secrets_are_empty_and_restorable" {
  variables {
    secrets_kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-1111-1111-1111-111111111111"
  }

  assert {
    condition = alltrue([for secret in aws_secretsmanager_secret.app :
      secret.recovery_window_in_days == 30 && secret.kms_key_id == var.secrets_kms_key_arn
    ])
    error_message = "A deleted secret must be restorable, and under the key that was given."
  }
}

run "a_cluster_may_have_no_placement" {
  variables {
    placements = []
  }

  assert {
    condition     = length(output.app_secret_arns) == 0
    error_message = "Without placements there must be no secret."
  }
}

run "a_hundred_placements_are_allowed" {
  command = plan

  variables {
    placements = [for n in range(100) : format("p-aaaaaaaaaa%s", join("", [substr("abcdefghijklmnopqrst", floor(n / 10), 1), substr("abcdefghij", n % 10, 1)]))]
  }

  assert {
    condition     = length(aws_secretsmanager_secret.app) == 100
    error_message = "There must be a secret for each."
  }
}

run "refuses_more_than_a_hundred_placements" {
  command = plan

  variables {
    placements = [for n in range(101) : format("p-aaaaaaaaaa%s", join("", [substr("abcdefghijklmnopqrst", floor(n / 10), 1), substr("abcdefghij", n % 10, 1)]))]
  }

  expect_failures = [var.placements]
}

run "refuses_bad_input" {
  command = plan

  variables {
    placements           = ["p-abcdefghijkl", "p-ABCDEFGHIJKL"]
    cluster_id           = "cluster"
    secrets_kms_key_arn  = "alias/a"
    recovery_window_days = 6
    operation_id         = "a b"
    environment          = ""
  }

  expect_failures = [
    var.placements,
    var.cluster_id,
    var.secrets_kms_key_arn,
    var.recovery_window_days,
    var.operation_id,
    var.environment,
  ]
}
