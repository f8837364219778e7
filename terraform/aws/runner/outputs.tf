output "launch_template" {
  value = aws_launch_template.runner.name
}

output "range" {
  description = "From where probes come: one of `network`'s visitors."
  value       = var.range
}

output "start" {
  description = "Starts a runner."
  value       = "aws ec2 run-instances --region ${local.region} --launch-template LaunchTemplateName=${aws_launch_template.runner.name} --query Instances[0].InstanceId --output text"
}

output "enter" {
  description = "Opens a shell on it."
  value       = "aws ssm start-session --region ${local.region} --target RUNNER"
}
