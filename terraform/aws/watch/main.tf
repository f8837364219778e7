# Watches from the cloud's side, with no key: the gateway cannot tell that it is dead.
#
#   an object is created under points/ → EventBridge → log group → metric filter → metric → alarm → SNS
#
# Where nothing comes there is no datum, and a missing datum counts as an alarm's.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  points    = "${var.path}points/"

  watched = merge(
    { any = { pattern = "${local.points}*", hours = var.hours } },
    { for name, vm in var.vms : "vm-${name}" => { pattern = "${local.points}${vm.id}/*", hours = vm.hours } },
  )
}

resource "aws_sns_topic" "alarms" {
  # Not encrypted with a key: CloudWatch and EventBridge cannot publish through the AWS-managed one, and nothing secret is
  # said here.
  name = "${var.name}-alarms"
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = ["cloudwatch.amazonaws.com", "events.amazonaws.com"] }
      Action    = "sns:Publish"
      Resource  = aws_sns_topic.alarms.arn
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_sns_topic_subscription" "emails" {
  for_each = toset(var.emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_cloudwatch_event_rule" "points" {
  name        = "${var.name}-points"
  description = "New recovery points"

  event_pattern = jsonencode({
    source      = ["aws.s3"]
    detail-type = ["Object Created"]
    detail = {
      bucket = { name = [var.bucket] }
      object = { key = [{ prefix = local.points }] }
    }
  })
}

# EventBridge writes only to log groups of this name, and by a policy of the log group: it takes no role for them.
resource "aws_cloudwatch_log_group" "points" {
  name              = "/aws/events/${var.name}-points"
  retention_in_days = 30
}

resource "aws_cloudwatch_log_resource_policy" "points" {
  policy_name = "${var.name}-points"

  policy_document = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = ["events.amazonaws.com", "delivery.logs.amazonaws.com"] }
      Action    = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource  = "${aws_cloudwatch_log_group.points.arn}:*"
    }]
  })
}

resource "aws_cloudwatch_event_target" "points" {
  rule       = aws_cloudwatch_event_rule.points.name
  arn        = aws_cloudwatch_log_group.points.arn
  depends_on = [aws_cloudwatch_log_resource_policy.points]
}

resource "aws_cloudwatch_log_metric_filter" "points" {
  for_each = local.watched

  name           = "${var.name}-points-${each.key}"
  log_group_name = aws_cloudwatch_log_group.points.name
  pattern        = "{ $.detail.object.key = \"${each.value.pattern}\" }"

  metric_transformation {
    namespace = "Sparesite"
    name      = "${var.name}-points-${each.key}"
    value     = "1"
  }
}

resource "aws_cloudwatch_metric_alarm" "points" {
  for_each = local.watched

  alarm_name          = "${var.name}-no-new-point-${each.key}"
  alarm_description   = "No new recovery point in the vault for ${each.value.hours} h (${each.key}): is the gateway alive, is the uplink?"
  namespace           = aws_cloudwatch_log_metric_filter.points[each.key].metric_transformation[0].namespace
  metric_name         = aws_cloudwatch_log_metric_filter.points[each.key].metric_transformation[0].name
  statistic           = "Sum"
  period              = 3600
  evaluation_periods  = each.value.hours
  datapoints_to_alarm = each.value.hours
  threshold           = 1
  comparison_operator = "LessThanThreshold"
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# What ends the vault at one stroke, and who may: told at once. Both need a CloudTrail trail of the account.
resource "aws_cloudwatch_event_rule" "keys" {
  name        = "${var.name}-key-ends"
  description = "A key of the vault is disabled, scheduled for deletion, or gets another policy"

  event_pattern = jsonencode({
    source      = ["aws.kms"]
    detail-type = ["AWS API Call via CloudTrail"]
    detail = {
      eventName = ["DisableKey", "PutKeyPolicy", "ScheduleKeyDeletion"]
      resources = { ARN = var.key_arns }
    }
  })
}

resource "aws_cloudwatch_event_target" "keys" {
  rule = aws_cloudwatch_event_rule.keys.name
  arn  = aws_sns_topic.alarms.arn
}

resource "aws_cloudwatch_event_rule" "break_glass" {
  name        = "${var.name}-break-glass"
  description = "The break-glass role was taken"

  event_pattern = jsonencode({
    source      = ["aws.sts"]
    detail-type = ["AWS API Call via CloudTrail"]
    detail = {
      eventName         = ["AssumeRole"]
      requestParameters = { roleArn = [var.break_glass_role_arn] }
    }
  })
}

resource "aws_cloudwatch_event_target" "break_glass" {
  rule = aws_cloudwatch_event_rule.break_glass.name
  arn  = aws_sns_topic.alarms.arn
}
