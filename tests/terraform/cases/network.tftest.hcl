variables {
  name        = "acme-site1"
  ranges      = ["10.20.0.0/16"]
  subnets     = { servers = { range = "10.20.1.0/24", zone = "eu-central-1a" }, more = { range = "10.20.2.0/24", zone = "eu-central-1b" } }
  dns_servers = ["10.20.1.10"]
  domain      = "corp.example"
  visitors    = ["100.64.8.0/24"]
}

# That nothing else hangs on the test network is asserted by test_network.py, over the whole site with all that can be on.
run "the_test_network_leads_nowhere" {
  command = plan

  assert {
    condition     = aws_vpc.test.enable_dns_support == false
    error_message = "Amazon's resolver answers in the test network: names lead out."
  }
  assert {
    condition     = length(aws_default_route_table.test.route) == 0
    error_message = "The test network has a route."
  }
  assert {
    condition     = alltrue([for rule in aws_default_security_group.test.ingress : rule.self && length(coalesce(rule.cidr_blocks, [])) == 0])
    error_message = "The group of the test network lets others in."
  }
  assert {
    condition     = alltrue([for rule in aws_default_security_group.test.egress : rule.self && length(coalesce(rule.cidr_blocks, [])) == 0])
    error_message = "The group of the test network lets something out."
  }
  assert {
    condition     = alltrue([for rule in concat(tolist(aws_network_acl.test.egress), tolist(aws_network_acl.test.ingress)) : contains(var.ranges, rule.cidr_block)])
    error_message = "The access list of the test network lets something pass its edge."
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.test : subnet.map_public_ip_on_launch == false])
    error_message = "A subnet of the test network gives public addresses."
  }
  assert {
    condition     = aws_vpc_dhcp_options.test[0].domain_name_servers == tolist(["10.20.1.10"])
    error_message = "Guests of a test do not learn the recovered DNS."
  }
}

run "amazons_resolver_is_no_fallback_in_tests" {
  command = plan

  variables {
    dns_servers = []
  }

  assert {
    condition     = length(aws_vpc_dhcp_options.test) == 0 && aws_vpc.test.enable_dns_support == false
    error_message = "Amazon's resolver answers in the test network."
  }
}

run "twins" {
  command = plan

  assert {
    condition     = aws_vpc.test.cidr_block == aws_vpc.recovery.cidr_block
    error_message = "The test network has other ranges."
  }
  assert {
    condition     = alltrue([for name, subnet in aws_subnet.recovery : aws_subnet.test[name].cidr_block == subnet.cidr_block && aws_subnet.test[name].availability_zone == subnet.availability_zone])
    error_message = "A subnet has no twin."
  }
}

run "the_recovery_network" {
  command = plan

  assert {
    condition     = aws_vpc_dhcp_options.recovery.domain_name_servers == tolist(["10.20.1.10"]) && aws_vpc_dhcp_options.recovery.domain_name == "corp.example"
    error_message = "Guests do not learn the recovered DNS."
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.recovery : subnet.map_public_ip_on_launch == false])
    error_message = "Recovered VMs get public addresses."
  }
  assert {
    condition     = alltrue([for rule in aws_default_security_group.recovery.ingress : rule.self == true || rule.cidr_blocks == tolist(["100.64.8.0/24"])])
    error_message = "Others than the VPN's clients come in."
  }
}

run "several_ranges" {
  command = plan

  variables {
    ranges = ["10.20.0.0/16", "10.21.0.0/16"]
  }

  assert {
    condition     = keys(aws_vpc_ipv4_cidr_block_association.recovery) == ["10.21.0.0/16"] && keys(aws_vpc_ipv4_cidr_block_association.test) == ["10.21.0.0/16"]
    error_message = "The networks lack a range."
  }
  assert {
    condition     = contains([for rule in aws_network_acl.test.egress : rule.cidr_block], "10.21.0.0/16")
    error_message = "A range is cut off in tests."
  }
}
