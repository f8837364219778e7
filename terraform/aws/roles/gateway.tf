# The gateway: reads the vault, adds to it, deletes nothing. The machine on site has a user's access key that can only
# take this role; the key is made by hand, since what terraform makes stays in its state.

resource "aws_iam_user" "gateway" {
  name = "${var.name}-gateway"
}

resource "aws_iam_user_policy" "gateway" {
  name = "take-the-role"
  user = aws_iam_user.gateway.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "sts:AssumeRole"
      Resource = aws_iam_role.gateway.arn
    }]
  })
}

resource "aws_iam_role" "gateway" {
  name        = "${var.name}-gateway"
  description = "Adds to the vault"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [merge(
      {
        Effect    = "Allow"
        Principal = { AWS = aws_iam_user.gateway.arn }
        Action    = "sts:AssumeRole"
      },
      var.site_addresses == null ? {} : { Condition = { IpAddress = { "aws:SourceIp" = var.site_addresses } } },
    )]
  })
}

resource "aws_iam_role_policy" "gateway" {
  name = "add-to-the-vault"
  role = aws_iam_role.gateway.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(local.look_at_bucket, [
      {
        Sid      = "Read"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:GetObjectRetention"]
        Resource = "${local.objects}*"
      },
      {
        # control/: the log only, not the records of runs.
        Sid    = "Add"
        Effect = "Allow"
        Action = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
        Resource = [
          for part in ["vault", "packs", "index", "maps", "points", "control/log"] : "${local.objects}${part}/*"
        ]
      },
      local.vault_key_by_s3,
      local.never_against_vault,
      local.never_delete,
    ])
  })
}
