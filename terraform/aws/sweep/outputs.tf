output "sweep" {
  description = "The plan's [deadline] sweep."
  value       = local.machine_arn
  depends_on  = [aws_sfn_state_machine.sweep]
}

output "role" {
  description = "The plan's [deadline] role."
  value       = aws_iam_role.deadline.arn
}

output "group" {
  description = "The plan's [deadline] group."
  value       = aws_scheduler_schedule_group.deadlines.name
}
