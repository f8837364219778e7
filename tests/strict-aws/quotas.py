"""Service Quotas of EC2 and EBS, of which moto has none: the values of a young account, and those that a test gives it."""

import json

from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.models import ServiceQuotasBackend
from moto.servicequotas.responses import ServiceQuotasResponse

# AWS's default values as public listings of the console have them.
DEFAULTS = {
    ("ec2", "L-1216C47A"): ("Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 5.0),
    ("ec2", "L-DB2E81BA"): ("Running On-Demand G and VT instances", 0.0),
    ("ec2", "L-7295265B"): ("Running On-Demand X instances", 0.0),
    ("ec2", "L-43DA4232"): ("Running On-Demand High Memory instances", 0.0),
    ("ebs", "L-7A658B76"): ("Storage for General Purpose SSD (gp3) volumes, in TiB", 50.0),
    ("ebs", "L-D18FCD1D"): ("Storage for General Purpose SSD (gp2) volumes, in TiB", 50.0),
    ("ebs", "L-09BD8365"): ("Storage for Provisioned IOPS SSD (io2) volumes, in TiB", 20.0),
    ("ebs", "L-82ACEF56"): ("Storage for Throughput Optimized HDD (st1) volumes, in TiB", 50.0),
    ("ebs", "L-17AF77E8"): ("Storage for Cold HDD (sc1) volumes, in TiB", 50.0),
    ("ebs", "L-309BACF6"): ("Snapshots per Region", 100000.0),
}

# Values of the account's own, by their codes; None: it has none.
given = {}


def give(values):
    """Raises ValueError for what is no quota: a misspelt one would silently test nothing."""
    known = {code for _, code in DEFAULTS}
    if not isinstance(values, dict) or set(values) - known:
        raise ValueError(f"an object of values by their codes, which are {sorted(known)}: {json.dumps(values)}")
    if wrong := [v for v in values.values() if v is not None and not isinstance(v, (int, float))]:
        raise ValueError(f"a quota is a number or null, not {json.dumps(wrong)}")
    given.update(values)


def quota(service, code, value):
    name, default = DEFAULTS[(service, code)]
    return {"ServiceCode": service, "QuotaCode": code, "QuotaName": name, "Adjustable": True, "GlobalQuota": False,
            "Value": default if value is None else float(value), "Unit": "None"}  # fmt: skip


def get_service_quota(original):
    def method(self, service_code, quota_code):
        if (service_code, quota_code) not in DEFAULTS:
            return original(self, service_code, quota_code)
        if given.get(quota_code, 0) is None:
            raise NoSuchResource
        return quota(service_code, quota_code, given.get(quota_code))

    return method


def get_aws_default_service_quota(self):
    sent = json.loads(self.body)
    service, code = sent["ServiceCode"], sent["QuotaCode"]
    if (service, code) not in DEFAULTS:
        raise NoSuchResource
    return json.dumps({"Quota": quota(service, code, None)})


def apply():
    ServiceQuotasBackend.get_service_quota = get_service_quota(ServiceQuotasBackend.get_service_quota)
    ServiceQuotasResponse.get_aws_default_service_quota = get_aws_default_service_quota
