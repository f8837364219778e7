# prune: the only one that deletes, and extends locks. It sets delete markers; versions go by the bucket's lifecycle, after
# their lock and the time in which a mistake can be taken back.

resource "aws_iam_role" "prune" {
  name        = "${var.name}-prune"
  description = "Deletes from the vault what expired"

  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [local.by_operators]
  })
}

resource "aws_iam_role_policy" "prune" {
  name = "prune-the-vault"
  role = aws_iam_role.prune.name

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
        # Packs that are rewritten, merged layers and segments, marks in the log.
        Sid      = "Add"
        Effect   = "Allow"
        Action   = "s3:PutObject"
        Resource = [for part in ["packs", "index", "maps", "control/log"] : "${local.objects}${part}/*"]
      },
      {
        # Without s3:BypassGovernanceRetention a lock can only grow.
        Sid      = "DeleteAndExtendLocks"
        Effect   = "Allow"
        Action   = ["s3:DeleteObject", "s3:PutObjectRetention"]
        Resource = [for part in ["packs", "index", "maps", "points"] : "${local.objects}${part}/*"]
      },
      local.vault_key_by_s3,
      local.never_against_vault,
    ])
  })
}
