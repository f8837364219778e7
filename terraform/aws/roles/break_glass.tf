# Break glass: for the day on which all else is lost or wrong. A user of its own with a second factor of its own, kept
# with the kit; all that the user can do is to take the role for an hour with it. An administrator sets the factor up: who
# may do that for himself adds one of his own to a stolen key.

resource "aws_iam_user" "break_glass" {
  name = "${var.name}-break-glass"
}

resource "aws_iam_user_policy" "break_glass" {
  name = "take-the-role"
  user = aws_iam_user.break_glass.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TakeTheRole"
        Effect    = "Allow"
        Action    = "sts:AssumeRole"
        Resource  = aws_iam_role.break_glass.arn
        Condition = { Bool = { "aws:MultiFactorAuthPresent" = "true" } }
      },
    ]
  })
}

resource "aws_iam_role" "break_glass" {
  name                 = "${var.name}-break-glass"
  description          = "Undoes locks, ends keys"
  max_session_duration = 3600

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { AWS = aws_iam_user.break_glass.arn }
      Action    = "sts:AssumeRole"
      Condition = {
        Bool            = { "aws:MultiFactorAuthPresent" = "true" }
        NumericLessThan = { "aws:MultiFactorAuthAge" = "900" }
      }
    }]
  })
}

resource "aws_iam_role_policy" "break_glass" {
  name = "vault-and-keys"
  role = aws_iam_role.break_glass.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "TheVault"
        Effect   = "Allow"
        Action   = "s3:*"
        Resource = [local.bucket_arn, "${local.bucket_arn}/*"]
      },
      {
        Sid      = "ItsKeys"
        Effect   = "Allow"
        Action   = "kms:*"
        Resource = [var.vault_key_arn, var.volume_key_arn]
      },
    ]
  })
}
