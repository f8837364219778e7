output "gateway_toml" {
  description = "For /etc/sparesite/gateway.toml."
  value       = <<-END
    [vault]
    url = "${module.vault.url}"
  END
}

output "gateway_credentials" {
  description = "For the gateway's credentials file, /etc/sparesite/aws-credentials: its key takes its role."
  value       = <<-END
    [default]
    region = ${var.region}
    role_arn = ${module.roles.gateway_role_arn}
    source_profile = key

    # aws iam create-access-key --user-name ${module.roles.gateway_user}
    [key]
    aws_access_key_id =
    aws_secret_access_key =
  END
}

output "plan_toml" {
  description = "For a recovery plan: the keys of its head, its subnets, its deadline."
  value = join("\n", concat(
    [
      "cloud = \"aws\"",
      "region = \"${var.region}\"",
      "volume_key = \"${module.vault.volume_key_arn}\"",
      "",
      "[deadline]",
      "sweep = \"${module.sweep.sweep}\"",
      "role = \"${module.sweep.role}\"",
      "group = \"${module.sweep.group}\"",
    ],
    [
      for subnet in flatten(local.networks[*].subnets) : <<-END

        [[subnet]]
        name = "${subnet.name}"
        id = "${subnet.id}"
        test = "${subnet.test}"
        range = "${subnet.range}"
        zone = "${subnet.zone}"
      END
    ],
    ["# security_groups of a [[vm]]: leave it out for the network's own, ${join(", ", local.networks[*].recovery_security_group_id)}."],
  ))
}

output "roles" {
  description = "What the operators take."
  value = {
    cloud_restore = module.roles.cloud_restore_role_arn
    prune         = module.roles.prune_role_arn
    watch         = module.roles.watch_role_arn
  }
}

output "break_glass_user" {
  value = module.roles.break_glass_user
}

output "start_runner" {
  value = module.runner.start
}

output "enter_runner" {
  value = module.runner.enter
}

output "reach_address" {
  description = "What VPN clients connect to; null while off."
  value       = module.reach.address
}
