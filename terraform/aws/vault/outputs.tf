output "bucket" {
  value = aws_s3_bucket.vault.id
}

output "bucket_arn" {
  value = local.bucket_arn
}

output "path" {
  description = "What every object's name begins with: empty, or with a slash at its end."
  value       = local.path
}

output "url" {
  description = "What [vault] url of gateway.toml and SPARESITE_VAULT are."
  value       = trimsuffix("s3://${var.bucket}/${var.prefix}", "/")
}

output "vault_key_arn" {
  value = aws_kms_key.vault.arn
}

output "volume_key_arn" {
  description = "The plan's volume_key."
  value       = aws_kms_key.volumes.arn
}
