output "address" {
  description = "What clients connect to; null while off."
  value       = one(aws_eip.reach[*].public_ip)
}

output "port" {
  value = var.port
}

output "client_range" {
  value = var.client_range
}
