terraform {
  required_version = ">= 1.10"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }

  # Where the state lives is said in backend.hcl, see backend.hcl.example: not on site, since on the bad day it is needed.
  backend "s3" {}
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { sparesite-site = var.name }
  }
}
