variable "name" {
  description = "What the resources are named after, such as acme-site1."
  type        = string
}

variable "region" {
  description = "Region of the vault and of the recovery."
  type        = string
}

variable "bucket" {
  description = "Name of the vault's bucket; unique in all of AWS."
  type        = string
}

variable "prefix" {
  description = "Path of the vault in the bucket."
  type        = string
  default     = "site1"
}

variable "lock_mode" {
  description = "GOVERNANCE or COMPLIANCE, see vault."
  type        = string
  default     = "GOVERNANCE"
}

variable "administrators" {
  description = "ARNs that may change the bucket's settings: at least the one that runs terraform."
  type        = list(string)
}

variable "operators" {
  description = "ARNs of the people that may recover."
  type        = list(string)
}

variable "site_addresses" {
  description = "Public ranges of the site; null: the gateway's key works from anywhere."
  type        = list(string)
  default     = null
}

variable "ranges" {
  description = "Ranges of the recovery VPC and its test twin: the site's own. With `part` they have to be, since its ranges are compared with these."
  type        = list(string)
}

variable "subnets" {
  description = "Where recovered VMs are put, by name."
  type = map(object({
    range = string
    zone  = string
  }))
}

variable "part" {
  description = "A network for the loss of only a part of the site: ranges beside the site's, which stay reachable through reach."
  type = object({
    ranges = list(string)
    subnets = map(object({
      range = string
      zone  = string
    }))
  })
  default = null

  # Two ranges overlap where they begin alike, as far as the shorter of their prefixes goes. What is no range, `network` refuses.
  validation {
    condition = try(alltrue([
      for pair in setproduct(var.part.ranges, var.ranges) : length(distinct([
        for range in pair : cidrhost(join("/", [split("/", range)[0], min([for one in pair : tonumber(split("/", one)[1])]...)]), 0)
      ])) == 2
    ]), true)
    error_message = "part.ranges lie beside the site's own, which `ranges` are: after the loss of a part, a VPC that had the site's ranges could not route them to what is left. So `ranges` may contain site_left.ranges, and part.ranges may overlap neither."
  }
}

variable "dns_servers" {
  description = "Addresses of the recovered DNS servers."
  type        = list(string)
  default     = []
}

variable "domain" {
  description = "The site's domain."
  type        = string
  default     = null
}

variable "emails" {
  description = "Who hears of alarms."
  type        = list(string)
  default     = []
}

variable "hours" {
  description = "Without a new recovery point for so long: alarm."
  type        = number
  default     = 6
}

variable "watched_vms" {
  description = "VMs with an alarm of their own, see watch."
  type = map(object({
    id    = string
    hours = number
  }))
  default = {}
}

variable "tool" {
  description = "The program under tools/ of the vault, as `sparesite-gateway init` of that version names it."
  type        = string
  default     = "0.1.0/sparesite-restore-x86_64-linux"
}

variable "tool_sha256" {
  description = "Its SHA-256."
  type        = string
}

variable "runner" {
  description = "On for the time of a restore or a drill."
  type        = bool
  default     = false
}

variable "runner_image" {
  description = "An image of your own for the runner, with guestfish, where guests are to be converted (runner/README.md); none for Amazon Linux."
  type        = string
  default     = null
}

variable "runner_range" {
  description = "Range of the runner's network: outside of the site's."
  type        = string
  default     = "192.168.250.0/28"
}

variable "reach" {
  description = "On from failover to failback."
  type        = bool
  default     = false
}

variable "client_range" {
  description = "Addresses of the VPN's clients."
  type        = string
  default     = "100.64.8.0/24"
}

variable "clients" {
  description = "Who may come in by VPN, see reach."
  type = map(object({
    public_key = string
    address    = string
  }))
  default = {}
}

variable "lost" {
  description = "What was lost, so where the VPN leads: the whole `site`, or a `part` of it."
  type        = string
  default     = "site"

  validation {
    condition     = var.lost == "site" || (var.lost == "part" && var.part != null)
    error_message = "`site`, or `part` where a network of that is said."
  }
}

variable "site_left" {
  description = "What is left of the site after the loss of a part, see reach."
  type = object({
    public_key = string
    ranges     = list(string)
  })
  default = null

  validation {
    condition     = var.site_left == null || var.lost == "part"
    error_message = "Where the whole site is lost, nothing is left of it: the recovery network has its ranges."
  }

  validation {
    condition = try(alltrue([
      for pair in setproduct(var.part.ranges, var.site_left.ranges) : length(distinct([
        for range in pair : cidrhost(join("/", [split("/", range)[0], min([for one in pair : tonumber(split("/", one)[1])]...)]), 0)
      ])) == 2
    ]), true)
    error_message = "What is left of the site keeps its ranges, and a VPC routes its own ranges nowhere else: part.ranges may not overlap site_left.ranges."
  }
}

variable "internet" {
  description = "Recovered VMs get out to the Internet through the VPN instance."
  type        = bool
  default     = false
}
