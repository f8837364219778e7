# One site: everything that it needs in the cloud. Until a test or the bad day nothing of it runs.

module "vault" {
  source = "../../vault"

  name                 = var.name
  bucket               = var.bucket
  prefix               = var.prefix
  lock_mode            = var.lock_mode
  administrators       = var.administrators
  prune_role_arn       = module.roles.prune_role_arn
  break_glass_role_arn = module.roles.break_glass_role_arn
}

# The whole site is lost: the site's own ranges, VMs keep their addresses.
module "network" {
  source = "../../network"

  name        = var.name
  ranges      = var.ranges
  subnets     = var.subnets
  dns_servers = var.dns_servers
  domain      = var.domain
  visitors    = [var.client_range, var.runner_range]
}

# A part of it is lost: ranges beside the site's, in a network of their own, since a VPC that had the site's ranges could not
# route them to what is left.
module "part" {
  source = "../../network"
  count  = var.part == null ? 0 : 1

  name        = "${var.name}-part"
  ranges      = var.part.ranges
  subnets     = var.part.subnets
  dns_servers = var.dns_servers
  domain      = var.domain
  visitors    = concat([var.client_range, var.runner_range], var.site_left == null ? [] : var.site_left.ranges)
}

locals {
  networks = concat([module.network], module.part)
  led_to   = var.lost == "part" ? one(module.part) : module.network
}

module "roles" {
  source = "../../roles"

  name              = var.name
  bucket            = var.bucket
  path              = module.vault.path
  vault_key_arn     = module.vault.vault_key_arn
  volume_key_arn    = module.vault.volume_key_arn
  recovery_vpc_ids  = local.networks[*].recovery_vpc_id
  test_vpc_ids      = local.networks[*].test_vpc_id
  subnet_ids        = flatten([for network in local.networks : concat(network.recovery_subnet_ids, network.test_subnet_ids)])
  deadline_role_arn = module.sweep.role
  schedule_group    = module.sweep.group
  operators         = var.operators
  site_addresses    = var.site_addresses
}

module "sweep" {
  source = "../../sweep"

  name      = var.name
  topic_arn = module.watch.topic_arn
}

module "watch" {
  source = "../../watch"

  name                 = var.name
  bucket               = module.vault.bucket
  path                 = module.vault.path
  hours                = var.hours
  vms                  = var.watched_vms
  emails               = var.emails
  key_arns             = [module.vault.vault_key_arn, module.vault.volume_key_arn]
  break_glass_role_arn = module.roles.break_glass_role_arn
}

module "runner" {
  source = "../../runner"

  name        = var.name
  enabled     = var.runner
  role_name   = module.roles.cloud_restore_role_name
  bucket      = module.vault.bucket
  path        = module.vault.path
  vault_url   = module.vault.url
  tool        = var.tool
  tool_sha256 = var.tool_sha256
  range       = var.runner_range
  image       = var.runner_image
  recovery = {
    vpc_id         = local.led_to.recovery_vpc_id
    route_table_id = local.led_to.route_table_id
    ranges         = var.lost == "part" ? var.part.ranges : var.ranges
  }
  zone = values(var.subnets)[0].zone
}

module "reach" {
  source = "../../reach"

  name                       = var.name
  enabled                    = var.reach
  vpc_id                     = local.led_to.recovery_vpc_id
  route_table_id             = local.led_to.route_table_id
  recovery_security_group_id = local.led_to.recovery_security_group_id
  zone                       = local.led_to.subnets[0].zone
  client_range               = var.client_range
  clients                    = var.clients
  site                       = var.site_left
  internet                   = var.internet
  private_key_parameter      = "/${var.name}/reach/private-key"
}
