variables {
  name                 = "acme-site1"
  bucket               = "acme-dr-site1"
  prefix               = "site1"
  administrators       = ["arn:aws:iam::123456789012:role/terraform"]
  prune_role_arn       = "arn:aws:iam::123456789012:role/acme-site1-prune"
  break_glass_role_arn = "arn:aws:iam::123456789012:role/acme-site1-break-glass"
}

run "what_is_stored_stays" {
  command = plan

  assert {
    condition     = aws_s3_bucket.vault.object_lock_enabled && !aws_s3_bucket.vault.force_destroy
    error_message = "The bucket has no Object Lock, or goes with what is in it."
  }
  assert {
    condition     = aws_s3_bucket_versioning.vault.versioning_configuration[0].status == "Enabled"
    error_message = "Versions are not kept."
  }
  assert {
    condition     = aws_s3_bucket_object_lock_configuration.vault.rule[0].default_retention[0].days == 30 && contains(["GOVERNANCE", "COMPLIANCE"], aws_s3_bucket_object_lock_configuration.vault.rule[0].default_retention[0].mode)
    error_message = "New objects are not locked."
  }
  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.vault.rule : rule.status == "Enabled" && alltrue([for end in rule.expiration : end.expired_object_delete_marker])])
    error_message = "A lifecycle rule is off, or expires current objects."
  }
  assert {
    condition     = anytrue([for rule in aws_s3_bucket_lifecycle_configuration.vault.rule : length(rule.abort_incomplete_multipart_upload) == 1])
    error_message = "Unfinished uploads are paid for ever."
  }
}

run "nobody_else_sees_it" {
  command = plan

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.vault.block_public_acls,
      aws_s3_bucket_public_access_block.vault.block_public_policy,
      aws_s3_bucket_public_access_block.vault.ignore_public_acls,
      aws_s3_bucket_public_access_block.vault.restrict_public_buckets,
    ])
    error_message = "Public access is not blocked."
  }
  assert {
    condition     = one([for rule in aws_s3_bucket_server_side_encryption_configuration.vault.rule : rule]).bucket_key_enabled && one([for rule in aws_s3_bucket_server_side_encryption_configuration.vault.rule : rule]).apply_server_side_encryption_by_default[0].sse_algorithm == "aws:kms"
    error_message = "Not encrypted by KMS, or each object costs a call."
  }
  assert {
    condition     = aws_s3_bucket_ownership_controls.vault.rule[0].object_ownership == "BucketOwnerEnforced"
    error_message = "Access lists are in force."
  }
  assert {
    condition     = aws_kms_key.vault.enable_key_rotation && aws_kms_key.vault.deletion_window_in_days == 30
    error_message = "The key is not rotated, or goes too soon."
  }
}

run "watch_hears_of_it" {
  command = plan

  assert {
    condition     = aws_s3_bucket_notification.vault.eventbridge
    error_message = "EventBridge is told nothing."
  }
}

run "addresses" {
  command = plan

  assert {
    condition     = output.url == "s3://acme-dr-site1/site1" && output.path == "site1/"
    error_message = "The vault's address is wrong."
  }
}

run "addresses_without_prefix" {
  command = plan

  variables {
    prefix = ""
  }

  assert {
    condition     = output.url == "s3://acme-dr-site1" && output.path == ""
    error_message = "The vault's address is wrong."
  }
}

run "an_unknown_lock_is_refused" {
  command = plan

  variables {
    lock_mode = "NONE"
  }
  expect_failures = [var.lock_mode]
}

run "no_administrator_is_refused" {
  command = plan

  variables {
    administrators = []
  }
  expect_failures = [var.administrators]
}

run "everybody_as_administrator_is_refused" {
  command = plan

  variables {
    administrators = ["*"]
  }
  expect_failures = [var.administrators]
}
