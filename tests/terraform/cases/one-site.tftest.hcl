run "until_the_day_nothing_runs" {
  command = plan

  assert {
    condition     = output.reach_address == null
    error_message = "The VPN is on before failover."
  }
  assert {
    condition     = output.gateway_toml == "[vault]\nurl = \"s3://acme-dr-site1/site1\"\n"
    error_message = "gateway.toml would name another vault."
  }
}

run "all_that_can_be_on" {
  command = plan

  variables {
    runner    = true
    reach     = true
    internet  = true
    lost      = "part"
    site_left = { public_key = "1l8m0Qm0kH5Ck2cJ7J8u0Qbq3C1y6p6a6wqZbqk3gnE=", ranges = ["10.20.0.0/16"] }
  }
}

run "what_is_left_of_a_lost_site_is_refused" {
  command = plan

  variables {
    reach     = true
    site_left = { public_key = "1l8m0Qm0kH5Ck2cJ7J8u0Qbq3C1y6p6a6wqZbqk3gnE=", ranges = ["10.20.0.0/16"] }
  }
  expect_failures = [var.site_left]
}

run "a_part_that_nobody_planned_is_refused" {
  command = plan

  variables {
    part = null
    lost = "part"
  }
  expect_failures = [var.lost]
}

run "a_part_within_the_sites_own_ranges_is_refused" {
  command = plan

  variables {
    part = {
      ranges  = ["10.120.0.0/16", "10.20.128.0/20"]
      subnets = { part = { range = "10.120.1.0/24", zone = "eu-central-1a" } }
    }
  }
  expect_failures = [var.part]
}

run "a_part_around_what_is_left_of_the_site_is_refused" {
  command = plan

  # The network for the loss of all of it has other ranges than the site.
  variables {
    ranges  = ["10.77.0.0/16"]
    subnets = { servers = { range = "10.77.1.0/24", zone = "eu-central-1a" } }
    part = {
      ranges  = ["10.16.0.0/12"]
      subnets = { part = { range = "10.20.1.0/24", zone = "eu-central-1a" } }
    }
    lost      = "part"
    site_left = { public_key = "1l8m0Qm0kH5Ck2cJ7J8u0Qbq3C1y6p6a6wqZbqk3gnE=", ranges = ["192.168.10.0/24", "10.20.0.0/24"] }
  }
  expect_failures = [var.site_left]
}

run "a_part_right_beside_the_site_is_none_of_it" {
  command = plan

  variables {
    ranges  = ["10.20.0.0/17"]
    subnets = { servers = { range = "10.20.1.0/24", zone = "eu-central-1a" } }
    part = {
      ranges  = ["10.20.128.0/17", "10.120.0.0/16"]
      subnets = { part = { range = "10.20.129.0/24", zone = "eu-central-1a" } }
    }
    lost = "part"
    # Some of the site's own.
    site_left = { public_key = "1l8m0Qm0kH5Ck2cJ7J8u0Qbq3C1y6p6a6wqZbqk3gnE=", ranges = ["10.20.64.0/18"] }
  }
}
