# Who may do what. Each role's document is beside it; tests/terraform/iam judges the documents by what each role must and
# must not be able to do.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account    = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  region     = data.aws_region.current.region
  bucket_arn = "arn:${local.partition}:s3:::${var.bucket}"
  objects    = "${local.bucket_arn}/${var.path}"
  ec2        = "arn:${local.partition}:ec2:${local.region}"

  # By people, with a second factor.
  by_operators = {
    Effect    = "Allow"
    Principal = { AWS = var.operators }
    Action    = "sts:AssumeRole"
    Condition = { Bool = { "aws:MultiFactorAuthPresent" = "true" } }
  }

  # What each role says of the bucket itself.
  look_at_bucket = [
    {
      Sid      = "LookAtBucket"
      Effect   = "Allow"
      Action   = ["s3:GetBucketLocation", "s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration"]
      Resource = local.bucket_arn
    },
    {
      # Without a condition on the prefix: a GET of what is not there would be answered by 403 in place of 404, and "is
      # there a next entry in the log?" is asked every cycle.
      Sid      = "ListNames"
      Effect   = "Allow"
      Action   = "s3:ListBucket"
      Resource = local.bucket_arn
    },
  ]

  vault_key_by_s3 = {
    Sid       = "KeyOfTheBucket"
    Effect    = "Allow"
    Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
    Resource  = var.vault_key_arn
    Condition = { StringEquals = { "kms:ViaService" = "s3.${local.region}.amazonaws.com" } }
  }

  # Not granted anywhere below either: said against a policy that somebody adds one day.
  never_against_vault = {
    Sid    = "NeverAgainstTheVault"
    Effect = "Deny"
    Action = [
      "s3:BypassGovernanceRetention",
      "s3:DeleteBucket",
      "s3:DeleteBucketPolicy",
      "s3:DeleteObjectVersion",
      "s3:PutBucketAcl",
      "s3:PutBucketObjectLockConfiguration",
      "s3:PutBucketPolicy",
      "s3:PutBucketPublicAccessBlock",
      "s3:PutBucketVersioning",
      "s3:PutEncryptionConfiguration",
      "s3:PutLifecycleConfiguration",
      "s3:PutObjectLegalHold",
      "s3:PutReplicationConfiguration",
    ]
    Resource = [local.bucket_arn, "${local.bucket_arn}/*"]
  }

  never_delete = {
    Sid      = "NeverDelete"
    Effect   = "Deny"
    Action   = ["s3:DeleteObject", "s3:PutObjectRetention"]
    Resource = "${local.bucket_arn}/*"
  }
}
