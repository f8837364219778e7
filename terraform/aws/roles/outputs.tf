output "gateway_role_arn" {
  value = aws_iam_role.gateway.arn
}

output "gateway_user" {
  description = "Make its access key by hand: aws iam create-access-key."
  value       = aws_iam_user.gateway.name
}

output "cloud_restore_role_arn" {
  value = aws_iam_role.cloud_restore.arn
}

output "cloud_restore_role_name" {
  value = aws_iam_role.cloud_restore.name
}

output "prune_role_arn" {
  value = aws_iam_role.prune.arn
}

output "watch_role_arn" {
  value = aws_iam_role.watch.arn
}

output "break_glass_role_arn" {
  value = aws_iam_role.break_glass.arn
}

output "break_glass_user" {
  description = "Make its password, access key and second factor by hand, and keep them with the kit."
  value       = aws_iam_user.break_glass.name
}
