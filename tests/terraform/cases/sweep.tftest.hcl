variables {
  name      = "acme-site1"
  topic_arn = "arn:aws:sns:eu-central-1:123456789012:acme-site1-alarms"
}

run "what_the_plan_names" {
  command = plan

  assert {
    condition     = output.sweep == "arn:aws:states:eu-central-1:123456789012:stateMachine:acme-site1-sweep" && output.group == "sparesite"
    error_message = "The plan would name another state machine or group."
  }
}

run "it_asks_for_run_and_kind_each_time" {
  command = plan

  assert {
    condition = alltrue([
      for name, state in jsondecode(aws_sfn_state_machine.sweep.definition).States :
      contains([for filter in state.Parameters.Filters : filter.Name], "tag:sparesite-run") && anytrue([for filter in state.Parameters.Filters : filter.Name == "tag:sparesite-kind" && try(filter.Values, []) == ["test"]])
      if startswith(name, "Find")
    ])
    error_message = "A search is not bound to the run and to tests."
  }
  assert {
    condition     = length([for name, _ in jsondecode(aws_sfn_state_machine.sweep.definition).States : name if startswith(name, "Find")]) == 10
    error_message = "A kind of thing is not looked for."
  }
}

run "who_hears_of_a_failure" {
  command = plan

  assert {
    condition     = contains(jsondecode(aws_cloudwatch_event_rule.failed.event_pattern).detail.status, "FAILED") && aws_cloudwatch_event_target.failed.arn == var.topic_arn
    error_message = "A failed sweep is told to nobody."
  }
}
