# The deadline of a test: whatever happens to the machine that runs it, what it made is removed in time. cloud-restore
# sets a one-off schedule before it makes anything; the schedule starts the state machine below.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.region
  # Said, not asked of the resource, so that a plan shows the policies in full.
  machine_arn = "arn:${local.partition}:states:${local.region}:${local.account}:stateMachine:${var.name}-sweep"
}

resource "aws_scheduler_schedule_group" "deadlines" {
  name = var.schedule_group
}

resource "aws_iam_role" "deadline" {
  name        = "${var.name}-deadline"
  description = "EventBridge Scheduler starts the sweep with it"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnLike      = { "aws:SourceArn" = "arn:${local.partition}:scheduler:${local.region}:${local.account}:schedule-group/${var.schedule_group}" }
      }
    }]
  })
}

resource "aws_iam_role_policy" "deadline" {
  name = "start-the-sweep"
  role = aws_iam_role.deadline.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "states:StartExecution"
      Resource = local.machine_arn
    }]
  })
}

resource "aws_iam_role" "sweep" {
  name        = "${var.name}-sweep"
  description = "Removes what tests made"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "states.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnLike      = { "aws:SourceArn" = local.machine_arn }
      }
    }]
  })
}

# What is tagged `failover` is the business that runs now: no input of the state machine can make it remove that.
resource "aws_iam_role_policy" "sweep" {
  name = "remove-what-tests-made"
  role = aws_iam_role.sweep.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Look"
        Effect = "Allow"
        Action = [
          "ec2:DescribeImages",
          "ec2:DescribeInstances",
          "ec2:DescribeNetworkInterfaces",
          "ec2:DescribeSnapshots",
          "ec2:DescribeVolumes",
        ]
        Resource = "*"
      },
      {
        Sid    = "RemoveWhatTestsMade"
        Effect = "Allow"
        Action = [
          "ec2:DeleteNetworkInterface",
          "ec2:DeleteSnapshot",
          "ec2:DeleteVolume",
          "ec2:DeregisterImage",
          "ec2:TerminateInstances",
        ]
        Resource = [
          "arn:${local.partition}:ec2:${local.region}:${local.account}:instance/*",
          "arn:${local.partition}:ec2:${local.region}:${local.account}:network-interface/*",
          "arn:${local.partition}:ec2:${local.region}:${local.account}:volume/*",
          "arn:${local.partition}:ec2:${local.region}::image/*",
          "arn:${local.partition}:ec2:${local.region}::snapshot/*",
        ]
        Condition = {
          StringEquals = { "aws:ResourceTag/sparesite-kind" = "test" }
          StringLike   = { "aws:ResourceTag/sparesite-run" = "?*" }
        }
      },
    ]
  })
}

resource "aws_sfn_state_machine" "sweep" {
  name       = "${var.name}-sweep"
  role_arn   = aws_iam_role.sweep.arn
  definition = jsonencode(local.definition)
  depends_on = [aws_iam_role_policy.sweep]
}

# A sweep that fails leaves things that cost money, and copies of live servers.
resource "aws_cloudwatch_event_rule" "failed" {
  name        = "${var.name}-sweep-failed"
  description = "A deadline sweep did not come to its end"

  event_pattern = jsonencode({
    source      = ["aws.states"]
    detail-type = ["Step Functions Execution Status Change"]
    detail = {
      stateMachineArn = [local.machine_arn]
      status          = ["FAILED", "TIMED_OUT", "ABORTED"]
    }
  })
}

resource "aws_cloudwatch_event_target" "failed" {
  rule = aws_cloudwatch_event_rule.failed.name
  arn  = var.topic_arn
}
