"""The test network leads nowhere, with everything on: what hangs on it is a closed list, so that a new way out fails here."""

import pytest
from states import resources, strings

# What may name the test VPC, one of its subnets or its route table.
MAY_HANG_ON_IT = {
    "aws_vpc",
    "aws_subnet",
    "aws_default_route_table",
    "aws_default_security_group",
    "aws_network_acl",
    "aws_vpc_dhcp_options_association",
    "aws_vpc_ipv4_cidr_block_association",
    # Documents name it: cloud-restore may start instances there.
    "aws_iam_role_policy",
}


STATES = pytest.mark.parametrize("state", ["off", "whole", "on"])
NETWORKS = pytest.mark.parametrize("network,subnets,own", [("module.network", 2, "10.20.0.0/16"), ("module.part[0]", 1, "10.120.0.0/16")])


def of(found, address):
    (values,) = [each["values"] for each in found if each["address"] == address]
    return values


@STATES
@NETWORKS
def test_nothing_else_hangs_on_the_test_network(state, network, subnets, own):
    found = resources(state)
    vpc = of(found, f"{network}.aws_vpc.test")["id"]
    ids = {each["values"]["id"] for each in found if each["type"] == "aws_subnet" and each["values"]["vpc_id"] == vpc}
    assert len(ids) == subnets
    ids |= {vpc} | {of(found, f"{network}.{kind}.test")["id"] for kind in ("aws_default_route_table", "aws_default_security_group", "aws_network_acl")}
    hanging = {each["address"]: each["type"] for each in found if any(one in text for text in strings(each["values"]) for one in ids)}
    assert len(hanging) >= 6
    assert {address for address, kind in hanging.items() if kind not in MAY_HANG_ON_IT} == set()


@STATES
@NETWORKS
def test_no_rule_lets_anything_past_its_edge(state, network, subnets, own):
    found = resources(state)
    acl = of(found, f"{network}.aws_network_acl.test")
    assert acl["egress"] and acl["ingress"]
    assert {rule["cidr_block"] for rule in acl["egress"] + acl["ingress"]} == {own}
    assert len(acl["subnet_ids"]) == subnets
    group = of(found, f"{network}.aws_default_security_group.test")
    assert group["egress"] and group["ingress"]
    for rule in group["egress"] + group["ingress"]:
        assert rule["self"] and not rule["cidr_blocks"] and not rule["prefix_list_ids"] and not rule["security_groups"]
    assert of(found, f"{network}.aws_vpc.test")["enable_dns_support"] is False


@pytest.mark.parametrize("state,network,behind", [
    ("whole", "module.network", {"100.64.8.0/24", "0.0.0.0/0"}),
    ("on", "module.part[0]", {"100.64.8.0/24", "0.0.0.0/0", "10.20.0.0/16"}),
])
def test_recovered_vms_get_out_through_the_vpn_only(state, network, behind):
    found = resources(state)
    interface = of(found, "module.reach.aws_instance.reach[0]")["primary_network_interface_id"]
    recovered = {of(found, f"{each}.aws_route_table.recovery")["id"] for each in ("module.network", "module.part[0]")}
    routes = [each["values"] for each in found if each["type"] == "aws_route" and each["values"]["route_table_id"] in recovered]
    assert {route["route_table_id"] for route in routes} == {of(found, f"{network}.aws_route_table.recovery")["id"]}
    # And to the runner, which lets nothing in.
    assert {route["destination_cidr_block"] for route in routes if route["network_interface_id"] == interface} == behind
    (peering,) = [each["values"] for each in found if each["type"] == "aws_vpc_peering_connection"]
    assert peering["vpc_id"] == of(found, "module.runner.aws_vpc.runner")["id"]
    (other,) = [route for route in routes if route["network_interface_id"] != interface]
    assert other["vpc_peering_connection_id"] == peering["id"] and other["destination_cidr_block"] == "192.168.250.0/28"
    assert all(rule["self"] for rule in of(found, "module.runner.aws_default_security_group.runner")["ingress"])


def test_off_recovered_vms_are_reached_by_nobody():
    kinds = {each["type"] for each in resources("off")}
    assert not kinds & {"aws_internet_gateway", "aws_eip", "aws_instance", "aws_route", "aws_nat_gateway", "aws_vpc_peering_connection"}


@pytest.mark.parametrize("state", ["whole", "on"])
def test_only_the_vpn_has_a_public_address(state):
    found = resources(state)
    gateways = [each for each in found if each["type"] == "aws_internet_gateway"]
    assert [each["address"] for each in gateways] == ["module.reach.aws_internet_gateway.reach[0]"]
    through = [each["values"] for each in found if each["type"] == "aws_route" and each["values"]["gateway_id"] == gateways[0]["values"]["id"]]
    tables = [each["values"]["id"] for each in found if each["address"] == "module.reach.aws_route_table.reach[0]"]
    assert [route["route_table_id"] for route in through] == tables
    associated = {each["values"]["subnet_id"] for each in found if each["type"] == "aws_route_table_association" and each["values"]["route_table_id"] == tables[0]}
    assert associated == {each["values"]["id"] for each in found if each["address"] == "module.reach.aws_subnet.reach[0]"}
    assert len([each for each in found if each["type"] == "aws_eip"]) == 1


def test_nothing_that_keeps_costing_is_on_before_the_day():
    kinds = [each["type"] for each in resources("off")]
    assert "aws_nat_gateway" not in kinds
    assert [each["values"]["vpc_endpoint_type"] for each in resources("off") if each["type"] == "aws_vpc_endpoint"] == ["Gateway"]
