variable "name" {
  description = "What the resources are named after, such as acme-site1."
  type        = string
}

variable "bucket" {
  description = "The vault's bucket; its events must go to EventBridge, as `vault` sets it."
  type        = string
}

variable "path" {
  description = "What every object's name begins with: empty, or with a slash at its end."
  type        = string
}

variable "hours" {
  description = "Without a new recovery point of any VM for so long: alarm. Some hours more than the gateway's longest RPO."
  type        = number
  default     = 6

  # Seven days are the most that CloudWatch looks back, by hours (PutMetricAlarm, Period: 604,800 seconds).
  validation {
    condition     = var.hours >= 1 && var.hours <= 168 && floor(var.hours) == var.hours
    error_message = "1 to 168, whole."
  }
}

variable "vms" {
  description = "VMs that get an alarm of their own: a name of your choice, the VM's id in the vault (32 hex digits, its folder under points/), hours."
  type = map(object({
    id    = string
    hours = number
  }))
  default = {}

  validation {
    condition     = alltrue([for vm in var.vms : can(regex("^[0-9a-f]{32}$", vm.id)) && vm.hours >= 1 && vm.hours <= 168 && floor(vm.hours) == vm.hours])
    error_message = "An id is 32 hex digits; hours are 1 to 168, whole."
  }
}

variable "emails" {
  description = "Who is told. Each has to confirm a message of AWS first."
  type        = list(string)
  default     = []
}

variable "key_arns" {
  description = "KMS keys whose end is told at once."
  type        = list(string)
}

variable "break_glass_role_arn" {
  description = "The role whose use is told at once."
  type        = string
}
