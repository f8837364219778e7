variable "name" {
  description = "What the resources are named after, such as acme-site1."
  type        = string
}

variable "schedule_group" {
  description = "Group of the schedules of deadlines; the plan's `group`."
  type        = string
  default     = "sparesite"
}

variable "topic_arn" {
  description = "SNS topic that hears of a sweep that left something over."
  type        = string
}

variable "rounds" {
  description = "How often it looks, a minute apart, before it gives up."
  type        = number
  default     = 60
}

variable "pause_seconds" {
  description = "Between two rounds."
  type        = number
  default     = 60
}
