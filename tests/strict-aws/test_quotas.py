"""Service Quotas: defaults, values that are given, and what the judge refuses."""

import json

import pytest

from test_ebs import refused
from test_judge import refused as violated
from test_judge import send

STANDARD = {"ServiceCode": "ec2", "QuotaCode": "L-1216C47A"}


def test_an_account_has_defaults_and_what_it_was_given(server):
    quotas = server.client("service-quotas")
    value = lambda: quotas.get_service_quota(**STANDARD)["Quota"]["Value"]  # noqa: E731
    assert value() == 5.0
    server.strict("POST", "quotas", {"L-1216C47A": 32})
    assert value() == 32.0
    assert quotas.get_aws_default_service_quota(**STANDARD)["Quota"]["Value"] == 5.0
    # Nobody ever asked for more: no value of the account's own.
    server.strict("POST", "quotas", {"L-1216C47A": None})
    refused("NoSuchResourceException", 400, quotas.get_service_quota, **STANDARD)
    assert quotas.get_aws_default_service_quota(**STANDARD)["Quota"]["Value"] == 5.0
    server.strict("POST", "reset")
    assert value() == 5.0
    refused("NoSuchResourceException", 400, quotas.get_service_quota, ServiceCode="ec2", QuotaCode="L-0")


@pytest.mark.parametrize("wrong", [{"L-1216C47B": 1}, {"L-1216C47A": "5"}, [1]])
def test_what_is_no_quota_is_refused(server, wrong):
    assert server.raw("POST", "/strict/quotas", json.dumps(wrong).encode())[0] == 400


@pytest.mark.expects_violations
@pytest.mark.parametrize("service, target, body, expected", [
    ("servicequotas", "ServiceQuotasV20190624.GetServiceQuota", {"ServiceCode": "ec2"}, "QuotaCode: required by"),
    ("servicequotas", "ServiceQuotasV20190624.GetServiceQuota", {**STANDARD, "Region": "x"}, "Region: unknown member"),
    ("servicequotas", "ServiceQuotasV20190624.GetQuota", STANDARD, "no operation of servicequotas"),
    ("servicequotas", "ServiceQuotas.GetServiceQuota", STANDARD, "no operation of servicequotas"),
    ("kms", "TrentService.DescribeKey", {"Key": "a"}, "Key: unknown member"),
])  # fmt: skip
def test_json_requests_that_depart_from_the_model_are_refused(server, service, target, body, expected):
    headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"}
    violated(server, send(server, service, "POST", "/", json.dumps(body).encode(), headers), expected)


@pytest.mark.expects_violations
def test_a_json_request_needs_its_content_type(server):
    headers = {"X-Amz-Target": "TrentService.DescribeKey", "Content-Type": "application/json"}
    violated(server, send(server, "kms", "POST", "/", b'{"KeyId": "a"}', headers), "application/x-amz-json-1.1")
