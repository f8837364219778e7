# The way in. Recovered VMs have no public address; people come through one WireGuard instance that exists from failover
# on. In a partial loss what is left of the site is one more peer, and the recovered part gets routes to it.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

data "aws_ssm_parameter" "image" {
  count = var.enabled && var.image_id == null ? 1 : 0

  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
}

locals {
  count  = var.enabled ? 1 : 0
  image  = var.image_id != null ? var.image_id : one(data.aws_ssm_parameter.image[*].value)
  behind = concat([var.client_range], var.site == null ? [] : var.site.ranges, var.internet ? ["0.0.0.0/0"] : [])

  peers = merge(
    { for name, client in var.clients : name => { public_key = client.public_key, ranges = "${client.address}/32" } },
    var.site == null ? {} : { site = { public_key = var.site.public_key, ranges = join(", ", var.site.ranges) } },
  )
}

resource "aws_vpc_ipv4_cidr_block_association" "reach" {
  count = local.count

  vpc_id     = var.vpc_id
  cidr_block = var.range
}

resource "aws_internet_gateway" "reach" {
  count = local.count

  vpc_id = var.vpc_id

  tags = { Name = "${var.name}-reach" }
}

resource "aws_subnet" "reach" {
  count = local.count

  vpc_id                  = aws_vpc_ipv4_cidr_block_association.reach[0].vpc_id
  cidr_block              = var.range
  availability_zone       = var.zone
  map_public_ip_on_launch = false

  tags = { Name = "${var.name}-reach" }
}

resource "aws_route_table" "reach" {
  count = local.count

  vpc_id = var.vpc_id

  tags = { Name = "${var.name}-reach" }
}

resource "aws_route" "internet" {
  count = local.count

  route_table_id         = aws_route_table.reach[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.reach[0].id
}

resource "aws_route_table_association" "reach" {
  count = local.count

  subnet_id      = aws_subnet.reach[0].id
  route_table_id = aws_route_table.reach[0].id
}

# From the recovered VMs to whoever is behind the VPN. The recovery tables themselves get no route to the gateway.
resource "aws_route" "behind" {
  for_each = toset(var.enabled ? local.behind : [])

  route_table_id         = var.route_table_id
  destination_cidr_block = each.value
  network_interface_id   = aws_instance.reach[0].primary_network_interface_id
}

resource "aws_security_group" "reach" {
  count = local.count

  name        = "${var.name}-reach"
  description = "The VPN instance"
  vpc_id      = var.vpc_id

  tags = { Name = "${var.name}-reach" }
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = toset(var.enabled ? var.open_to : [])

  security_group_id = aws_security_group.reach[0].id
  description       = "WireGuard, silent without a known key"
  ip_protocol       = "udp"
  from_port         = var.port
  to_port           = var.port
  cidr_ipv4         = each.value
}

# Answers, and what recovered VMs open towards clients, site and Internet, comes in from them.
resource "aws_vpc_security_group_ingress_rule" "recovered" {
  count = local.count

  security_group_id            = aws_security_group.reach[0].id
  description                  = "Recovered VMs"
  ip_protocol                  = "-1"
  referenced_security_group_id = var.recovery_security_group_id
}

resource "aws_vpc_security_group_egress_rule" "out" {
  count = local.count

  security_group_id = aws_security_group.reach[0].id
  description       = "To clients, recovered VMs, packages"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_iam_role" "reach" {
  count = local.count

  name        = "${var.name}-reach"
  description = "The VPN instance: reads its private key"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy" "reach" {
  count = local.count

  name = "its-key-and-sessions"
  role = aws_iam_role.reach[0].name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = "ssm:GetParameter"
        Resource = "arn:${data.aws_partition.current.partition}:ssm:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:parameter/${trimprefix(var.private_key_parameter, "/")}"
      },
      {
        Effect = "Allow"
        Action = [
          "ssm:UpdateInstanceInformation",
          "ssmmessages:CreateControlChannel",
          "ssmmessages:CreateDataChannel",
          "ssmmessages:OpenControlChannel",
          "ssmmessages:OpenDataChannel",
        ]
        Resource = "*"
      },
    ]
  })
}

resource "aws_iam_instance_profile" "reach" {
  count = local.count

  name = "${var.name}-reach"
  role = aws_iam_role.reach[0].name
}

resource "aws_instance" "reach" {
  count = local.count

  ami                         = local.image
  instance_type               = var.instance_type
  subnet_id                   = aws_subnet.reach[0].id
  vpc_security_group_ids      = [aws_security_group.reach[0].id]
  iam_instance_profile        = aws_iam_instance_profile.reach[0].name
  user_data_replace_on_change = true

  # No associate_public_ip_address: it would read as true once the fixed address is there, and each apply would replace it.

  # It forwards what is not addressed to it.
  source_dest_check = false

  user_data = templatefile("${path.module}/user_data.sh", {
    address   = "${cidrhost(var.client_range, 1)}/${split("/", var.client_range)[1]}"
    port      = var.port
    region    = data.aws_region.current.region
    parameter = var.private_key_parameter
    peers     = local.peers
    internet  = var.internet
  })

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted = true
  }

  # A newer image is no reason to cut thirty people off.
  lifecycle {
    ignore_changes = [ami]
  }

  depends_on = [aws_route.internet, aws_iam_role_policy.reach]

  tags = { Name = "${var.name}-reach" }
}

resource "aws_eip" "reach" {
  count = local.count

  domain = "vpc"

  tags = { Name = "${var.name}-reach" }
}

resource "aws_eip_association" "reach" {
  count = local.count

  allocation_id = aws_eip.reach[0].id
  instance_id   = aws_instance.reach[0].id
}
