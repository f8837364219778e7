# Two keys: of the bucket, and of the recovered volumes. Whoever deletes the first has deleted the vault, locks or not;
# so that is for the break-glass role alone, and takes 30 days in which it can be taken back.

locals {
  key_policy = {
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "PoliciesOfTheAccountHold"
        Effect    = "Allow"
        Principal = { AWS = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "OnlyBreakGlassEndsIt"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = ["kms:ScheduleKeyDeletion", "kms:DisableKey", "kms:DeleteImportedKeyMaterial"]
        Resource  = "*"
        Condition = { ArnNotLike = { "aws:PrincipalArn" = var.break_glass_role_arn } }
      },
    ]
  }
}

resource "aws_kms_key" "vault" {
  description             = "Sparesite vault ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = jsonencode(local.key_policy)

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "vault" {
  name          = "alias/${var.name}-vault"
  target_key_id = aws_kms_key.vault.key_id
}

resource "aws_kms_key" "volumes" {
  description             = "Recovered volumes of Sparesite ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = jsonencode(local.key_policy)

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "volumes" {
  name          = "alias/${var.name}-volumes"
  target_key_id = aws_kms_key.volumes.key_id
}
