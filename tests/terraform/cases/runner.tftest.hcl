variables {
  name        = "acme-site1"
  role_name   = "acme-site1-cloud-restore"
  bucket      = "acme-dr-site1"
  path        = "site1/"
  vault_url   = "s3://acme-dr-site1/site1"
  tool        = "0.1.0/sparesite-restore-x86_64-linux"
  tool_sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
  zone        = "eu-central-1a"
  recovery    = { vpc_id = "vpc-1", route_table_id = "rtb-1", ranges = ["10.20.0.0/16"] }
}

run "off_costs_nothing" {
  command = plan

  assert {
    condition     = length(aws_vpc_endpoint.services) == 0 && aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway"
    error_message = "Endpoints that cost exist while no runner works."
  }
  assert {
    condition     = length(aws_vpc_peering_connection.recovery) == 0 && length(aws_route.from_recovered) == 0
    error_message = "The recovery network leads somewhere while no runner works."
  }
}

run "no_way_in" {
  command = plan

  variables {
    enabled = true
  }

  assert {
    condition     = one(aws_launch_template.runner.network_interfaces).associate_public_ip_address == "false" && aws_launch_template.runner.key_name == null
    error_message = "The runner has a public address or a key pair."
  }
  assert {
    condition     = alltrue([for rule in aws_default_security_group.runner.ingress : rule.self])
    error_message = "The runner's network is open."
  }
  assert {
    condition     = aws_vpc_peering_connection.recovery[0].peer_vpc_id == "vpc-1" && keys(aws_route.to_recovered) == ["10.20.0.0/16"] && aws_route.from_recovered[0].destination_cidr_block == var.range
    error_message = "Probes do not get to recovered VMs and back."
  }
  assert {
    condition     = one(aws_launch_template.runner.metadata_options).http_tokens == "required" && aws_launch_template.runner.instance_initiated_shutdown_behavior == "terminate"
    error_message = "The metadata service answers without a token, or a runner that was shut down stays."
  }
  assert {
    condition     = length(setsubtract(["ebs", "ec2", "kms", "scheduler", "servicequotas", "ssm", "ssmmessages", "sts"], keys(aws_vpc_endpoint.services))) == 0
    error_message = "A service that cloud-restore calls has no endpoint."
  }
}

run "what_runs_is_pinned" {
  command = plan

  assert {
    condition     = strcontains(base64decode(aws_launch_template.runner.user_data), "--key 'site1/tools/0.1.0/sparesite-restore-x86_64-linux'") && strcontains(base64decode(aws_launch_template.runner.user_data), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    error_message = "The program is not the one that was pinned."
  }
}

run "an_unpinned_program_is_refused" {
  command = plan

  variables {
    tool_sha256 = ""
  }
  expect_failures = [var.tool_sha256]
}
