terraform {
  required_version = ">= 1.11.0, < 2.0.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }

  # Bucket and region come at init; one workspace, and so one state and one lock, for each cluster.
  backend "s3" {
    key                  = "terraform.tfstate"
    workspace_key_prefix = "placements"
    use_lockfile         = true
    encrypt              = true
  }
}
