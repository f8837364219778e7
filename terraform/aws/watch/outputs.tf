output "topic_arn" {
  value = aws_sns_topic.alarms.arn
}

output "alarms" {
  value = [for alarm in aws_cloudwatch_metric_alarm.points : alarm.alarm_name]
}
