output "recovery_vpc_id" {
  value = aws_vpc.recovery.id
}

output "test_vpc_id" {
  value = aws_vpc.test.id
}

output "subnets" {
  description = "Each [[subnet]] of the plan: name, id, test, range, zone."
  value = [
    for name, subnet in aws_subnet.recovery : {
      name  = name
      id    = subnet.id
      test  = aws_subnet.test[name].id
      range = subnet.cidr_block
      zone  = subnet.availability_zone
    }
  ]
}

output "recovery_subnet_ids" {
  value = [for subnet in aws_subnet.recovery : subnet.id]
}

output "test_subnet_ids" {
  value = [for subnet in aws_subnet.test : subnet.id]
}

output "recovery_security_group_id" {
  description = "The recovery VPC's own group: what the plan's security_groups default to."
  value       = aws_default_security_group.recovery.id
}

output "test_security_group_id" {
  value = aws_default_security_group.test.id
}

output "route_table_id" {
  description = "Of the recovery subnets; reach adds its routes to it."
  value       = aws_route_table.recovery.id
}
