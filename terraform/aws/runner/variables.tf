variable "name" {
  description = "What the resources are named after, such as acme-site1."
  type        = string
}

variable "enabled" {
  description = "On for the time in which a runner works. Off, nothing of this costs anything."
  type        = bool
  default     = false
}

variable "role_name" {
  description = "cloud-restore's role."
  type        = string
}

variable "bucket" {
  description = "The vault's bucket."
  type        = string
}

variable "path" {
  description = "What every object's name begins with: empty, or with a slash at its end."
  type        = string
}

variable "vault_url" {
  description = "Becomes SPARESITE_VAULT."
  type        = string
}

variable "tool" {
  description = "The program's object under tools/, such as 0.1.0/sparesite-restore-x86_64-linux."
  type        = string
}

variable "tool_sha256" {
  description = "Its SHA-256. Whoever can write to the vault cannot put another program under the runner."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.tool_sha256))
    error_message = "64 hex digits."
  }
}

variable "range" {
  description = "Range of the runner's own network: outside of the site's ranges, since it reaches recovered VMs."
  type        = string
  default     = "192.168.250.0/28"
}

variable "zone" {
  description = "Availability zone."
  type        = string
}

variable "instance_type" {
  description = "Restoring is hashing and decrypting: cores and network count."
  type        = string
  default     = "c6i.xlarge"
}

variable "image" {
  description = "An image with systemd, the AWS CLI and the agent of Session Manager; with guestfish, if guests are to be converted."
  type        = string
  default     = "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
  nullable    = false
}

variable "endpoints" {
  description = "Services that the runner calls, each by an interface endpoint."
  type        = list(string)
  default     = ["ebs", "ec2", "kms", "scheduler", "servicequotas", "ssm", "ssmmessages", "sts"]
}

variable "recovery" {
  description = "The recovery network, whose VMs it probes."
  type = object({
    vpc_id         = string
    route_table_id = string
    ranges         = list(string)
  })
}
