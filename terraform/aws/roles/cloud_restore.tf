# cloud-restore: reads the vault, makes instances of recovery points, removes what it made. Everything that it makes is
# tagged at creation, it cannot tag what exists, and it touches nothing without the tag.

locals {
  kinds = ["test", "failover"]
  made  = { StringLike = { "aws:ResourceTag/sparesite-run" = "?*" }, StringEquals = { "aws:ResourceTag/sparesite-kind" = local.kinds } }
  being = { StringLike = { "aws:RequestTag/sparesite-run" = "?*" }, StringEquals = { "aws:RequestTag/sparesite-kind" = local.kinds } }
  vpc_arns = {
    for kind, ids in { test = var.test_vpc_ids, failover = var.recovery_vpc_ids } : kind => [
      for id in ids : "${local.ec2}:${local.account}:vpc/${id}"
    ]
  }

  # Images and snapshots carry no account in their ARNs.
  snapshots = "${local.ec2}::snapshot/*"
  images    = "${local.ec2}::image/*"
}

resource "aws_iam_role" "cloud_restore" {
  name                 = "${var.name}-cloud-restore"
  description          = "Turns recovery points into instances"
  max_session_duration = 43200

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      local.by_operators,
      {
        # The restore runner.
        Effect    = "Allow"
        Principal = { Service = "ec2.amazonaws.com" }
        Action    = "sts:AssumeRole"
      },
    ]
  })
}

resource "aws_iam_role_policy" "cloud_restore_vault" {
  name = "read-the-vault"
  role = aws_iam_role.cloud_restore.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(local.look_at_bucket, [
      {
        Sid      = "Read"
        Effect   = "Allow"
        Action   = "s3:GetObject"
        Resource = "${local.objects}*"
      },
      {
        # Run records and log entries; a fence is one of those.
        Sid      = "AddRecordsAndFences"
        Effect   = "Allow"
        Action   = "s3:PutObject"
        Resource = "${local.objects}control/*"
      },
      local.vault_key_by_s3,
      local.never_against_vault,
      local.never_delete,
    ])
  })
}

resource "aws_iam_role_policy" "cloud_restore_machines" {
  name = "make-instances"
  role = aws_iam_role.cloud_restore.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      {
        Sid    = "Look"
        Effect = "Allow"
        Action = [
          "ec2:DescribeImages",
          "ec2:DescribeInstanceStatus",
          "ec2:DescribeInstanceTypeOfferings",
          "ec2:DescribeInstanceTypes",
          "ec2:DescribeInstances",
          "ec2:DescribeNetworkInterfaces",
          "ec2:DescribeRouteTables",
          "ec2:DescribeSecurityGroups",
          "ec2:DescribeSnapshots",
          "ec2:DescribeSubnets",
          "ec2:DescribeVolumes",
          "ec2:DescribeVpcs",
          "servicequotas:GetAWSDefaultServiceQuota",
          "servicequotas:GetServiceQuota",
          "servicequotas:ListServiceQuotas",
          "sts:GetCallerIdentity",
        ]
        Resource = "*"
      },
      {
        Sid       = "StartSnapshots"
        Effect    = "Allow"
        Action    = "ebs:StartSnapshot"
        Resource  = local.snapshots
        Condition = local.being
      },
      {
        Sid       = "FillItsSnapshots"
        Effect    = "Allow"
        Action    = ["ebs:PutSnapshotBlock", "ebs:CompleteSnapshot"]
        Resource  = local.snapshots
        Condition = local.made
      },
      {
        Sid       = "RegisterImages"
        Effect    = "Allow"
        Action    = "ec2:RegisterImage"
        Resource  = local.images
        Condition = local.being
      },
      {
        Sid       = "RegisterItsSnapshots"
        Effect    = "Allow"
        Action    = "ec2:RegisterImage"
        Resource  = local.snapshots
        Condition = local.made
      },
      {
        Sid       = "RunItsImages"
        Effect    = "Allow"
        Action    = "ec2:RunInstances"
        Resource  = [local.images, local.snapshots]
        Condition = local.made
      },
      {
        # A donor: its licence is the cloud's. What is on its disk is Amazon's, and goes.
        Sid       = "RunAmazonsImages"
        Effect    = "Allow"
        Action    = "ec2:RunInstances"
        Resource  = local.images
        Condition = { StringEquals = { "ec2:Owner" = "amazon" } }
      },
      {
        Sid       = "MakeVolumes"
        Effect    = "Allow"
        Action    = "ec2:CreateVolume"
        Resource  = "${local.ec2}:${local.account}:volume/*"
        Condition = local.being
      },
      {
        Sid       = "MakeVolumesOfItsSnapshots"
        Effect    = "Allow"
        Action    = "ec2:CreateVolume"
        Resource  = local.snapshots
        Condition = local.made
      },
      {
        # Not another group, nor another network: those would need their own resources here.
        Sid    = "ExchangeItsDisks"
        Effect = "Allow"
        Action = ["ec2:AttachVolume", "ec2:DetachVolume", "ec2:ModifyInstanceAttribute"]
        Resource = [
          "${local.ec2}:${local.account}:instance/*",
          "${local.ec2}:${local.account}:volume/*",
        ]
        Condition = local.made
      },
      {
        Sid       = "RunTagged"
        Effect    = "Allow"
        Action    = "ec2:RunInstances"
        Resource  = ["${local.ec2}:${local.account}:instance/*", "${local.ec2}:${local.account}:volume/*"]
        Condition = local.being
      },
      {
        Sid      = "RunInTheseSubnets"
        Effect   = "Allow"
        Action   = "ec2:RunInstances"
        Resource = [for id in var.subnet_ids : "${local.ec2}:${local.account}:subnet/${id}"]
      },
      {
        Sid       = "RunInGroupsOfTheseNetworks"
        Effect    = "Allow"
        Action    = "ec2:RunInstances"
        Resource  = "${local.ec2}:${local.account}:security-group/*"
        Condition = { ArnEquals = { "ec2:Vpc" = flatten(values(local.vpc_arns)) } }
      },
      ],
      # A test's instance has its interface in the test network, or does not start: a copy of a live server never
      # meets the recovered one. No interface gets a public address.
      [
        for kind in local.kinds : {
          Sid      = "Run${title(kind)}InItsNetwork"
          Effect   = "Allow"
          Action   = "ec2:RunInstances"
          Resource = "${local.ec2}:${local.account}:network-interface/*"
          Condition = {
            StringLike   = { "aws:RequestTag/sparesite-run" = "?*" }
            StringEquals = { "aws:RequestTag/sparesite-kind" = kind }
            ArnEquals    = { "ec2:Vpc" = local.vpc_arns[kind] }
            BoolIfExists = { "ec2:AssociatePublicIpAddress" = "false" }
          }
        }
      ],
      [
        {
          # Tags come with what makes the thing. Nothing that exists can be tagged into reach.
          Sid    = "TagAtCreation"
          Effect = "Allow"
          Action = "ec2:CreateTags"
          Resource = [
            local.images,
            local.snapshots,
            "${local.ec2}:${local.account}:instance/*",
            "${local.ec2}:${local.account}:network-interface/*",
            "${local.ec2}:${local.account}:volume/*",
          ]
          Condition = merge(local.being, {
            StringEquals = merge(local.being.StringEquals, { "ec2:CreateAction" = ["CreateVolume", "RegisterImage", "RunInstances", "StartSnapshot"] })
          })
        },
        {
          Sid    = "UseAndRemoveWhatItMade"
          Effect = "Allow"
          Action = [
            "ec2:DeleteNetworkInterface",
            "ec2:DeleteSnapshot",
            "ec2:DeleteVolume",
            "ec2:DeregisterImage",
            "ec2:GetConsoleOutput",
            "ec2:GetConsoleScreenshot",
            "ec2:StartInstances",
            "ec2:StopInstances",
            "ec2:TerminateInstances",
          ]
          Resource = [
            local.images,
            local.snapshots,
            "${local.ec2}:${local.account}:instance/*",
            "${local.ec2}:${local.account}:network-interface/*",
            "${local.ec2}:${local.account}:volume/*",
          ]
          Condition = local.made
        },
        {
          Sid      = "SetDeadlines"
          Effect   = "Allow"
          Action   = ["scheduler:CreateSchedule", "scheduler:GetSchedule", "scheduler:DeleteSchedule"]
          Resource = "arn:${local.partition}:scheduler:${local.region}:${local.account}:schedule/${var.schedule_group}/sparesite-*"
        },
        {
          Sid       = "GiveTheSchedulerItsRole"
          Effect    = "Allow"
          Action    = "iam:PassRole"
          Resource  = var.deadline_role_arn
          Condition = { StringEquals = { "iam:PassedToService" = "scheduler.amazonaws.com" } }
        },
        {
          # Not by EC2 alone: the EBS direct APIs call KMS in the caller's name.
          Sid    = "KeyOfTheVolumes"
          Effect = "Allow"
          Action = [
            "kms:Decrypt",
            "kms:DescribeKey",
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:ReEncryptFrom",
            "kms:ReEncryptTo",
          ]
          Resource = var.volume_key_arn
        },
        {
          Sid       = "LendTheKeyToEc2"
          Effect    = "Allow"
          Action    = "kms:CreateGrant"
          Resource  = var.volume_key_arn
          Condition = { Bool = { "kms:GrantIsForAWSResource" = "true" } }
        },
        {
          # The ways in which a disk leaves the account.
          Sid    = "NeverOutOfTheAccount"
          Effect = "Deny"
          Action = [
            "ec2:CopyImage",
            "ec2:CopySnapshot",
            "ec2:CreateStoreImageTask",
            "ec2:ExportImage",
            "ec2:ModifyImageAttribute",
            "ec2:ModifySnapshotAttribute",
          ]
          Resource = "*"
        },
    ])
  })
}
