variables {
  name                       = "acme-site1"
  vpc_id                     = "vpc-1"
  route_table_id             = "rtb-1"
  recovery_security_group_id = "sg-1"
  zone                       = "eu-central-1a"
  image_id                   = "ami-1"
  private_key_parameter      = "/acme-site1/reach/private-key"
  clients                    = { ada = { public_key = "FZi7ZHcYkR4L7Zt7sZ2m0y3oIAaW3sJXrJvjQ0bZb1k=", address = "100.64.8.10" } }
}

run "off_is_nothing" {
  command = plan

  assert {
    condition = length(concat(
      aws_instance.reach, aws_eip.reach, aws_internet_gateway.reach, aws_subnet.reach, aws_route_table.reach, aws_iam_role.reach,
      aws_security_group.reach, aws_vpc_ipv4_cidr_block_association.reach,
    )) == 0 && length(aws_route.behind) == 0
    error_message = "Something exists, and costs, before failover."
  }
}

run "on" {
  command = plan

  variables {
    enabled = true
  }

  assert {
    condition     = aws_instance.reach[0].source_dest_check == false
    error_message = "The instance drops what it shall forward."
  }
  assert {
    condition     = toset(keys(aws_route.behind)) == toset(["100.64.8.0/24"])
    error_message = "Recovered VMs lack the way back to clients, or lead elsewhere."
  }
  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.clients : "${rule.ip_protocol} ${rule.from_port} ${rule.to_port}"]) == toset(["udp 51820 51820"])
    error_message = "More than the VPN's port is open."
  }
  assert {
    condition     = strcontains(aws_instance.reach[0].user_data, "Address = 100.64.8.1/24") && strcontains(aws_instance.reach[0].user_data, "AllowedIPs = 100.64.8.10/32")
    error_message = "WireGuard's configuration is wrong."
  }
  assert {
    condition     = !can(regex("PrivateKey = [A-Za-z0-9+/]", aws_instance.reach[0].user_data)) && !strcontains(aws_instance.reach[0].user_data, "masquerade")
    error_message = "A secret in the user data, or a way to the Internet that nobody asked for."
  }
  assert {
    condition     = aws_instance.reach[0].metadata_options[0].http_tokens == "required"
    error_message = "The metadata service answers without a token."
  }
}

run "what_is_left_of_the_site" {
  command = plan

  variables {
    enabled  = true
    internet = true
    site     = { public_key = "1l8m0Qm0kH5Ck2cJ7J8u0Qbq3C1y6p6a6wqZbqk3gnE=", ranges = ["10.20.0.0/16"] }
  }

  assert {
    condition     = toset(keys(aws_route.behind)) == toset(["100.64.8.0/24", "10.20.0.0/16", "0.0.0.0/0"])
    error_message = "No route to what is left of the site, or to the Internet."
  }
  assert {
    condition     = strcontains(aws_instance.reach[0].user_data, "AllowedIPs = 10.20.0.0/16") && strcontains(aws_instance.reach[0].user_data, "masquerade")
    error_message = "The site is no peer, or nothing gets out."
  }
}

run "a_wrong_key_is_refused" {
  command = plan

  variables {
    clients = { ada = { public_key = "secret", address = "100.64.8.10" } }
  }
  expect_failures = [var.clients]
}
