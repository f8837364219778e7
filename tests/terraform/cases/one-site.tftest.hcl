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
