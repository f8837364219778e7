# The restore runner: a machine beside the vault, since blocks that are sent to EBS from outside of AWS crawl. It has no
# public address and no SSH. A network of its own leads to the AWS services that it calls and, to probe what was recovered,
# into the recovery VPC; nowhere else, never into the test VPC. In the recovery VPC itself it would ask DNS servers that are not
# there yet.

data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  region    = data.aws_region.current.region
  partition = data.aws_partition.current.partition
}

resource "aws_vpc" "runner" {
  cidr_block           = var.range
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = "${var.name}-runner" }
}

resource "aws_subnet" "runner" {
  vpc_id                  = aws_vpc.runner.id
  cidr_block              = var.range
  availability_zone       = var.zone
  map_public_ip_on_launch = false

  tags = { Name = "${var.name}-runner" }
}

resource "aws_route_table" "runner" {
  vpc_id = aws_vpc.runner.id

  tags = { Name = "${var.name}-runner" }
}

resource "aws_route_table_association" "runner" {
  subnet_id      = aws_subnet.runner.id
  route_table_id = aws_route_table.runner.id
}

resource "aws_default_security_group" "runner" {
  vpc_id = aws_vpc.runner.id

  # To the endpoints, which are in this group too, and to S3 through its gateway.
  ingress {
    description = "Endpoints"
    protocol    = "tcp"
    from_port   = 443
    to_port     = 443
    self        = true
  }

  egress {
    description = "HTTPS; the routes lead to AWS only"
    protocol    = "tcp"
    from_port   = 443
    to_port     = 443
    cidr_blocks = ["0.0.0.0/0"]
  }

  egress {
    description = "Probes of what was recovered"
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = var.recovery.ranges
  }

  tags = { Name = "${var.name}-runner" }
}

# Free of charge, so it stays. Through it: the vault, and the packages of the image's own distribution.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.runner.id
  service_name      = "com.amazonaws.${local.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.runner.id]

  # A runner that was taken over cannot carry what it opened to a bucket of somebody else's.
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TheVault"
        Effect    = "Allow"
        Principal = "*"
        Action    = "s3:*"
        Resource = [
          "arn:${local.partition}:s3:::${var.bucket}",
          "arn:${local.partition}:s3:::${var.bucket}/*",
        ]
      },
      {
        Sid       = "PackagesOfTheImage"
        Effect    = "Allow"
        Principal = "*"
        Action    = "s3:GetObject"
        Resource  = "arn:${local.partition}:s3:::al2023-repos-${local.region}-*/*"
      },
    ]
  })

  tags = { Name = "${var.name}-runner-s3" }
}

resource "aws_vpc_endpoint" "services" {
  for_each = toset(var.enabled ? var.endpoints : [])

  vpc_id              = aws_vpc.runner.id
  service_name        = "com.amazonaws.${local.region}.${each.value}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = [aws_subnet.runner.id]
  security_group_ids  = [aws_default_security_group.runner.id]
  private_dns_enabled = true

  tags = { Name = "${var.name}-runner-${each.value}" }
}

resource "aws_vpc_peering_connection" "recovery" {
  count = var.enabled ? 1 : 0

  vpc_id      = aws_vpc.runner.id
  peer_vpc_id = var.recovery.vpc_id
  auto_accept = true

  tags = { Name = "${var.name}-runner" }
}

resource "aws_route" "to_recovered" {
  for_each = toset(var.enabled ? var.recovery.ranges : [])

  route_table_id            = aws_route_table.runner.id
  destination_cidr_block    = each.value
  vpc_peering_connection_id = aws_vpc_peering_connection.recovery[0].id
}

# Answers only: the runner's group lets nothing in.
resource "aws_route" "from_recovered" {
  count = var.enabled ? 1 : 0

  route_table_id            = var.recovery.route_table_id
  destination_cidr_block    = var.range
  vpc_peering_connection_id = aws_vpc_peering_connection.recovery[0].id
}

resource "aws_iam_instance_profile" "runner" {
  name = "${var.name}-cloud-restore"
  role = var.role_name
}

# What Session Manager's agent needs, and not AWS's own policy for it, which reads every parameter of the account.
resource "aws_iam_role_policy" "sessions" {
  name = "session-manager"
  role = var.role_name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect = "Allow"
      Action = [
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
      ]
      Resource = "*"
    }]
  })
}

resource "aws_launch_template" "runner" {
  name                                 = "${var.name}-runner"
  description                          = "sparesite-restore beside the vault"
  image_id                             = var.image
  instance_type                        = var.instance_type
  instance_initiated_shutdown_behavior = "terminate"
  update_default_version               = true

  iam_instance_profile {
    arn = aws_iam_instance_profile.runner.arn
  }

  network_interfaces {
    device_index                = 0
    subnet_id                   = aws_subnet.runner.id
    security_groups             = [aws_default_security_group.runner.id]
    associate_public_ip_address = "false"
    delete_on_termination       = "true"
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      encrypted             = "true"
      delete_on_termination = "true"
    }
  }

  # No secret in here: whoever may describe instances reads it. The kit comes with the operator, the passphrase is asked.
  user_data = base64encode(templatefile("${path.module}/user_data.sh", {
    bucket = var.bucket
    key    = "${var.path}tools/${var.tool}"
    sha256 = var.tool_sha256
    url    = var.vault_url
    region = local.region
  }))

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.name}-runner" }
  }
}
