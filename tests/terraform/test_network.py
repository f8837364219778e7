"""The test network leads nowhere, with everything on: what hangs on it is a closed list, so that a new way out fails here."""

import ipaddress

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


def ids_of_test_network(found):
    vpc = next(each["values"]["id"] for each in found if each["address"].endswith("aws_vpc.test"))
    subnets = [each["values"]["id"] for each in found if each["type"] == "aws_subnet" and each["values"]["vpc_id"] == vpc]
    tables = [each["values"]["id"] for each in found if each["address"].endswith("aws_default_route_table.test")]
    groups = [each["values"]["id"] for each in found if each["address"].endswith("aws_default_security_group.test")]
    acls = [each["values"]["id"] for each in found if each["address"].endswith("aws_network_acl.test")]
    assert len(subnets) == 3 and len(tables) == len(groups) == len(acls) == 1
    return {vpc, *subnets, *tables, *groups, *acls}


@pytest.mark.parametrize("state", ["off", "on"])
def test_nothing_else_hangs_on_the_test_network(state):
    found = resources(state)
    ids = ids_of_test_network(found)
    hanging = {each["address"]: each["type"] for each in found if any(one in text for text in strings(each["values"]) for one in ids)}
    assert len(hanging) >= 9
    assert {address for address, kind in hanging.items() if kind not in MAY_HANG_ON_IT} == set()


@pytest.mark.parametrize("state", ["off", "on"])
def test_no_rule_lets_anything_past_its_edge(state):
    found = {each["address"]: each["values"] for each in resources(state)}
    own = [ipaddress.ip_network(one) for one in ("10.20.0.0/16", "10.120.0.0/16")]
    acl = next(values for address, values in found.items() if address.endswith("aws_network_acl.test"))
    assert acl["egress"] and acl["ingress"]
    for rule in acl["egress"] + acl["ingress"]:
        assert ipaddress.ip_network(rule["cidr_block"]) in own
    group = next(values for address, values in found.items() if address.endswith("aws_default_security_group.test"))
    for rule in group["egress"] + group["ingress"]:
        assert rule["self"] and not rule["cidr_blocks"] and not rule["prefix_list_ids"] and not rule["security_groups"]
    vpc = next(values for address, values in found.items() if address.endswith("aws_vpc.test"))
    assert vpc["enable_dns_support"] is False


def test_off_recovered_vms_are_reached_by_nobody():
    kinds = {each["type"] for each in resources("off")}
    assert not kinds & {"aws_internet_gateway", "aws_eip", "aws_instance", "aws_route", "aws_nat_gateway"}


def test_on_only_the_vpn_has_a_public_address():
    found = resources("on")
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
