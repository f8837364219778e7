variables {
  name              = "acme-site1"
  bucket            = "acme-dr-site1"
  path              = "site1/"
  vault_key_arn     = "arn:aws:kms:eu-central-1:123456789012:key/1"
  volume_key_arn    = "arn:aws:kms:eu-central-1:123456789012:key/2"
  recovery_vpc_ids  = ["vpc-1"]
  test_vpc_ids      = ["vpc-2"]
  subnet_ids        = ["subnet-1", "subnet-2"]
  deadline_role_arn = "arn:aws:iam::123456789012:role/acme-site1-deadline"
  operators         = ["arn:aws:iam::123456789012:user/ada"]
}

# What the documents allow and deny is judged by ../iam.
run "people_bring_a_second_factor" {
  command = plan

  assert {
    condition = alltrue([
      for role in [aws_iam_role.prune, aws_iam_role.watch, aws_iam_role.cloud_restore] :
      alltrue([for statement in jsondecode(role.assume_role_policy).Statement : try(statement.Condition.Bool["aws:MultiFactorAuthPresent"], "false") == "true" if can(statement.Principal.AWS)])
    ])
    error_message = "A role can be taken without a second factor."
  }
}

run "everybody_as_operator_is_refused" {
  command = plan

  variables {
    operators = ["*"]
  }
  expect_failures = [var.operators]
}
