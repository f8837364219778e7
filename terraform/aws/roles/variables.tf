variable "name" {
  description = "What the resources are named after, such as acme-site1."
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

variable "vault_key_arn" {
  description = "KMS key of the bucket."
  type        = string
}

variable "volume_key_arn" {
  description = "KMS key of recovered volumes; the plan's volume_key."
  type        = string
}

variable "recovery_vpc_ids" {
  description = "Where a failover starts instances."
  type        = list(string)
}

variable "test_vpc_ids" {
  description = "Where a test starts instances."
  type        = list(string)
}

variable "subnet_ids" {
  description = "The only subnets in which cloud-restore starts instances: recovery and test."
  type        = list(string)
}

variable "deadline_role_arn" {
  description = "The only role that cloud-restore passes on."
  type        = string
}

variable "schedule_group" {
  description = "Group of the schedules of deadlines."
  type        = string
  default     = "sparesite"
}

variable "operators" {
  description = "ARNs of the people (users, or roles) that may take the roles cloud-restore, prune and watch, with a second factor."
  type        = list(string)

  validation {
    condition     = length(var.operators) > 0 && !contains(var.operators, "*")
    error_message = "At least one, and not everybody."
  }
}

variable "site_addresses" {
  description = "Public ranges of the site, such as [\"203.0.113.7/32\"]: a stolen gateway key is worth nothing elsewhere. Null: from anywhere."
  type        = list(string)
  default     = null
}
