# watch: names and times, no content.

resource "aws_iam_role" "watch" {
  name        = "${var.name}-watch"
  description = "Sees names and times of the vault's objects"

  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [local.by_operators]
  })
}

resource "aws_iam_role_policy" "watch" {
  name = "look-at-the-vault"
  role = aws_iam_role.watch.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(local.look_at_bucket, [
      {
        Sid      = "LookAtAlarms"
        Effect   = "Allow"
        Action   = ["cloudwatch:DescribeAlarms", "cloudwatch:GetMetricData"]
        Resource = "*"
      },
      {
        Sid      = "NoContent"
        Effect   = "Deny"
        Action   = ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"]
        Resource = "${local.bucket_arn}/*"
      },
      local.never_against_vault,
      local.never_delete,
    ])
  })
}
