variable "name" {
  description = "What the resources are named after, such as acme-site1."
  type        = string
}

variable "enabled" {
  description = "Off until failover: then nothing of this exists, and nothing costs."
  type        = bool
  default     = false
}

variable "vpc_id" {
  description = "The recovery VPC."
  type        = string
}

variable "route_table_id" {
  description = "Route table of the recovery subnets."
  type        = string
}

variable "range" {
  description = "Range of the VPN's own public subnet, added to the VPC: outside of the site's ranges."
  type        = string
  default     = "100.64.0.0/28"
}

variable "zone" {
  description = "Availability zone."
  type        = string
}

variable "client_range" {
  description = "Addresses of the VPN's clients; the first one is the server's."
  type        = string
  default     = "100.64.8.0/24"
}

variable "clients" {
  description = "Who may come in: a name, the WireGuard public key, an address of client_range."
  type = map(object({
    public_key = string
    address    = string
  }))
  default = {}

  validation {
    condition     = alltrue([for client in var.clients : can(regex("^[A-Za-z0-9+/]{43}=$", client.public_key))])
    error_message = "A WireGuard public key is 44 characters of base64."
  }
}

variable "site" {
  description = "What is left of the site, after the loss of a part: its WireGuard public key, and the ranges that are still there; none of them within the VPC's own, which a VPC routes nowhere else. Null: nothing is left."
  type = object({
    public_key = string
    ranges     = list(string)
  })
  default = null
}

variable "internet" {
  description = "Recovered VMs get out to the Internet through the VPN instance (mail, updates). They have no address there."
  type        = bool
  default     = false
}

variable "open_to" {
  description = "From where the VPN's port is open."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "port" {
  description = "UDP."
  type        = number
  default     = 51820
}

variable "private_key_parameter" {
  description = "Name of the SSM parameter (SecureString) with the server's private key. Put there by hand, in time: clients get the public one before the day."
  type        = string
}

variable "instance_type" {
  description = "Thirty people fit into the smallest."
  type        = string
  default     = "t3.small"
}

variable "image_id" {
  description = "Null: the newest Amazon Linux 2023."
  type        = string
  default     = null
}

variable "recovery_security_group_id" {
  description = "Group of the recovered VMs."
  type        = string
}
