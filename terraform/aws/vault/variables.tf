variable "name" {
  description = "What the resources are named after, such as acme-site1."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "Three to 32 lower-case letters, digits and hyphens."
  }
}

variable "bucket" {
  description = "Name of the bucket; unique in all of AWS."
  type        = string
}

variable "prefix" {
  description = "Path of the vault in the bucket, without slashes at the ends; may be empty."
  type        = string
  default     = ""

  validation {
    condition     = var.prefix == trim(var.prefix, "/")
    error_message = "Without slashes at the ends."
  }
}

variable "lock_mode" {
  description = "GOVERNANCE: the break-glass role can remove a locked object. COMPLIANCE: nobody can, the account's root neither."
  type        = string
  default     = "GOVERNANCE"

  validation {
    condition     = contains(["GOVERNANCE", "COMPLIANCE"], var.lock_mode)
    error_message = "GOVERNANCE or COMPLIANCE."
  }
}

variable "lock_days" {
  description = "How long every new object is locked. Nothing that is stored can be deleted sooner, by whom ever."
  type        = number
  default     = 30

  validation {
    condition     = var.lock_days >= 1 && var.lock_days <= 3650
    error_message = "One day to ten years."
  }
}

variable "undelete_days" {
  description = "How long an object that prune has deleted can be brought back, and is paid for."
  type        = number
  default     = 14

  validation {
    condition     = var.undelete_days >= 1
    error_message = "One day at least."
  }
}

variable "administrators" {
  description = "ARNs of the principals that may change the bucket's settings: at least the one that runs terraform. Of roles the role's ARN; * and ? are wildcards."
  type        = list(string)

  validation {
    condition     = length(var.administrators) > 0 && !contains(var.administrators, "*")
    error_message = "At least one, and not everybody: with none, nobody but the account's root could change the bucket again."
  }
}

variable "prune_role_arn" {
  description = "The only role that deletes."
  type        = string
}

variable "break_glass_role_arn" {
  description = "The only role that removes versions, bypasses locks and schedules the deletion of keys."
  type        = string
}
