# The recovery VPC. It leads nowhere by itself: `reach` and `runner` add their ways in, and take them away again.

locals {
  dns_servers = length(var.dns_servers) > 0 ? var.dns_servers : ["AmazonProvidedDNS"]
}

resource "aws_vpc" "recovery" {
  cidr_block           = var.ranges[0]
  enable_dns_support   = true
  enable_dns_hostnames = false

  tags = { Name = "${var.name}-recovery" }
}

resource "aws_vpc_ipv4_cidr_block_association" "recovery" {
  for_each = toset(slice(var.ranges, 1, length(var.ranges)))

  vpc_id     = aws_vpc.recovery.id
  cidr_block = each.value
}

resource "aws_subnet" "recovery" {
  for_each = var.subnets

  vpc_id                  = aws_vpc.recovery.id
  cidr_block              = each.value.range
  availability_zone       = each.value.zone
  map_public_ip_on_launch = false
  depends_on              = [aws_vpc_ipv4_cidr_block_association.recovery]

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_route_table" "recovery" {
  vpc_id = aws_vpc.recovery.id

  tags = { Name = "${var.name}-recovery" }
}

resource "aws_route_table_association" "recovery" {
  for_each = aws_subnet.recovery

  subnet_id      = each.value.id
  route_table_id = aws_route_table.recovery.id
}

resource "aws_vpc_dhcp_options" "recovery" {
  domain_name         = var.domain
  domain_name_servers = local.dns_servers
  ntp_servers         = ["169.254.169.123"]

  tags = { Name = "${var.name}-recovery" }
}

resource "aws_vpc_dhcp_options_association" "recovery" {
  vpc_id          = aws_vpc.recovery.id
  dhcp_options_id = aws_vpc_dhcp_options.recovery.id
}

# The VPC's own group, since a VM for which the plan names none is put into it. Rules are inline, so that a rule that
# somebody adds by hand goes at the next apply.
resource "aws_default_security_group" "recovery" {
  vpc_id = aws_vpc.recovery.id

  ingress {
    description = "Among themselves"
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    self        = true
  }

  dynamic "ingress" {
    for_each = length(var.visitors) > 0 ? [1] : []

    content {
      description = "Through reach, and probes of the runner"
      protocol    = "-1"
      from_port   = 0
      to_port     = 0
      cidr_blocks = var.visitors
    }
  }

  # What leaves is decided by the routes, which only reach and runner make.
  egress {
    description = "Anywhere"
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }

  tags = { Name = "${var.name}-recovery" }
}
