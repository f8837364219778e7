# The isolated test VPC: copies of live servers start here while the originals run. Same ranges, and nothing that leads
# out: no gateway, no peering, no endpoint, no route, and no Amazon resolver, which answers for the whole Internet and
# so carries data out in names. tests/terraform asserts each of these.

resource "aws_vpc" "test" {
  cidr_block           = var.ranges[0]
  enable_dns_support   = false
  enable_dns_hostnames = false

  tags = { Name = "${var.name}-test" }
}

resource "aws_vpc_ipv4_cidr_block_association" "test" {
  for_each = toset(slice(var.ranges, 1, length(var.ranges)))

  vpc_id     = aws_vpc.test.id
  cidr_block = each.value
}

resource "aws_subnet" "test" {
  for_each = var.subnets

  vpc_id                  = aws_vpc.test.id
  cidr_block              = each.value.range
  availability_zone       = each.value.zone
  map_public_ip_on_launch = false
  depends_on              = [aws_vpc_ipv4_cidr_block_association.test]

  tags = { Name = "${var.name}-test-${each.key}" }
}

# `route = []` takes out what somebody adds by hand, at the next apply.
resource "aws_default_route_table" "test" {
  default_route_table_id = aws_vpc.test.default_route_table_id
  route                  = []

  tags = { Name = "${var.name}-test" }
}

# The VPC's own group, since a VM for which the plan names none is put into it.
resource "aws_default_security_group" "test" {
  vpc_id = aws_vpc.test.id

  ingress {
    description = "Among themselves"
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    self        = true
  }

  egress {
    description = "Among themselves"
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    self        = true
  }

  tags = { Name = "${var.name}-test" }
}

# A second lock beside the missing routes: even with a gateway nothing passes the edge of a subnet but the VPC's own.
resource "aws_network_acl" "test" {
  vpc_id     = aws_vpc.test.id
  subnet_ids = [for subnet in aws_subnet.test : subnet.id]

  dynamic "ingress" {
    for_each = var.ranges

    content {
      rule_no    = 100 + ingress.key
      action     = "allow"
      protocol   = "-1"
      cidr_block = ingress.value
      from_port  = 0
      to_port    = 0
    }
  }

  dynamic "egress" {
    for_each = var.ranges

    content {
      rule_no    = 100 + egress.key
      action     = "allow"
      protocol   = "-1"
      cidr_block = egress.value
      from_port  = 0
      to_port    = 0
    }
  }

  tags = { Name = "${var.name}-test" }
}

resource "aws_vpc_dhcp_options" "test" {
  count = length(var.dns_servers) > 0 ? 1 : 0

  domain_name         = var.domain
  domain_name_servers = var.dns_servers

  tags = { Name = "${var.name}-test" }
}

resource "aws_vpc_dhcp_options_association" "test" {
  count = length(var.dns_servers) > 0 ? 1 : 0

  vpc_id          = aws_vpc.test.id
  dhcp_options_id = aws_vpc_dhcp_options.test[0].id
}
