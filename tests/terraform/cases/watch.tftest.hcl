variables {
  name                 = "acme-site1"
  bucket               = "acme-dr-site1"
  path                 = "site1/"
  hours                = 6
  vms                  = { dc01 = { id = "00112233445566778899aabbccddeeff", hours = 2 } }
  emails               = ["it@corp.example"]
  key_arns             = ["arn:aws:kms:eu-central-1:123456789012:key/1"]
  break_glass_role_arn = "arn:aws:iam::123456789012:role/acme-site1-break-glass"
}

run "silence_is_an_alarm" {
  command = plan

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.points : alarm.treat_missing_data == "breaching" && alarm.comparison_operator == "LessThanThreshold" && alarm.threshold == 1 && alarm.datapoints_to_alarm == alarm.evaluation_periods])
    error_message = "An alarm stays quiet where nothing comes."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.points["any"].evaluation_periods == 6 && aws_cloudwatch_metric_alarm.points["vm-dc01"].evaluation_periods == 2
    error_message = "An alarm comes at another time than said."
  }
  assert {
    condition     = aws_cloudwatch_log_metric_filter.points["any"].pattern == "{ $.detail.object.key = \"site1/points/*\" }" && aws_cloudwatch_log_metric_filter.points["vm-dc01"].pattern == "{ $.detail.object.key = \"site1/points/00112233445566778899aabbccddeeff/*\" }"
    error_message = "A filter counts something else."
  }
  assert {
    condition     = jsondecode(aws_cloudwatch_event_rule.points.event_pattern).detail.object.key[0].prefix == "site1/points/" && startswith(aws_cloudwatch_log_group.points.name, "/aws/events/")
    error_message = "Events of new points do not get into the log group."
  }
}

run "an_id_that_is_none_is_refused" {
  command = plan

  variables {
    vms = { dc01 = { id = "dc01", hours = 2 } }
  }
  expect_failures = [var.vms]
}

run "a_vm_that_changes_once_a_week_may_be_silent_for_so_long" {
  command = plan

  variables {
    hours = 168
    vms   = { archive = { id = "00112233445566778899aabbccddeeff", hours = 168 } }
  }
  # PutMetricAlarm: the period times the evaluation periods is at most 604,800 seconds where the period is an hour or more.
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.points : alarm.period >= 3600 && alarm.period * alarm.evaluation_periods == 604800])
    error_message = "An alarm is not of seven days, or CloudWatch would refuse it."
  }
}

run "more_than_cloudwatch_looks_back_is_refused" {
  command = plan

  variables {
    hours = 169
    vms   = { archive = { id = "00112233445566778899aabbccddeeff", hours = 169 } }
  }
  expect_failures = [var.hours, var.vms]
}

run "a_part_of_an_hour_is_refused" {
  command = plan

  variables {
    hours = 1.5
    vms   = { archive = { id = "00112233445566778899aabbccddeeff", hours = 1.5 } }
  }
  expect_failures = [var.hours, var.vms]
}
