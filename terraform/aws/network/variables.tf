variable "name" {
  description = "What the resources are named after, such as acme-site1."
  type        = string
}

variable "ranges" {
  description = "Ranges of the recovery VPC and of its twin, the first one first; each /16 to /28."
  type        = list(string)

  validation {
    condition     = length(var.ranges) > 0 && alltrue([for range in var.ranges : can(cidrhost(range, 0))])
    error_message = "At least one range, such as 10.20.0.0/16."
  }
}

variable "subnets" {
  description = "Where recovered VMs are put, by the name that the plan calls it. With the site's own ranges VMs keep their addresses (`keep`)."
  type = map(object({
    range = string
    zone  = string
  }))

  validation {
    condition     = length(var.subnets) > 0
    error_message = "At least one subnet."
  }
}

variable "dns_servers" {
  description = "Addresses of the recovered DNS servers, which guests learn by DHCP; at most four. None: Amazon's, which does not know the site's names."
  type        = list(string)
  default     = []

  validation {
    condition     = length(var.dns_servers) <= 4
    error_message = "At most four."
  }
}

variable "domain" {
  description = "The site's domain, such as corp.example."
  type        = string
  default     = null
}

variable "visitors" {
  description = "Ranges that may open connections to recovered VMs: of the VPN's clients, of the runner, of what is left of the site. They come in only while reach or runner is on."
  type        = list(string)
  default     = []
}
