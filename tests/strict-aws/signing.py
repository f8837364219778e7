"""Reads the SigV4 Authorization header: who signs, for which service and region, and what is malformed in it.

The signature itself is not verified: that needs the secret, and is what the vendor's clients and unit tests
of the signer are for. What a wrong scope or an unsigned header would break on AWS is found here.
"""

import re
from dataclasses import dataclass

HEADER = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[A-Za-z0-9]+)/(?P<date>\d{8})/(?P<region>[^/,\s]+)/(?P<service>[^/,\s]+)"
    r"/aws4_request,\s*SignedHeaders=(?P<signed>[a-z0-9;_-]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d{1,2}")


@dataclass
class Scope:
    service: str | None
    region: str | None
    access_key: str | None


def read(headers):
    """Returns the scope and a list of what is wrong. Headers by lower-case names."""
    value = headers.get("authorization")
    if value is None:
        return Scope(None, None, None), ["authorization: no SigV4 Authorization header"]
    found = HEADER.fullmatch(value)
    if not found:
        loose = re.search(r"Credential=([^/,\s]+)/[^/,\s]*/([^/,\s]*)/([^/,\s]*)/", value)
        scope = Scope(loose[3].lower(), loose[2], loose[1]) if loose else Scope(None, None, None)
        return scope, ["authorization: not a well-formed SigV4 header"]
    wrong = []
    if not REGION.fullmatch(found["region"]):
        wrong.append(f"authorization: {found['region']!r} has not the form of a region")
    service = found["service"].lower()  # as moto finds it, so that no spelling gets past the judge
    if service != found["service"]:
        wrong.append(f"authorization: the service is {service}, not {found['service']}")
    signed = found["signed"].split(";")
    if signed != sorted(set(signed)):
        wrong.append("authorization: SignedHeaders are not sorted or not unique")
    for name in ("host", "x-amz-date"):
        if name not in signed:
            wrong.append(f"authorization: {name} is not signed")
    # "any x-amz-* headers that you plan to include in your request" must be signed.
    for name in headers:
        if name.startswith("x-amz-") and name != "x-amz-date" and name not in signed:
            wrong.append(f"authorization: {name} is sent but not signed")
    for name in signed:
        if name not in headers:
            wrong.append(f"authorization: {name} is signed but not sent")
    date = headers.get("x-amz-date", "")
    if not re.fullmatch(r"\d{8}T\d{6}Z", date):
        wrong.append(f"x-amz-date: {date!r} has not the form yyyymmddThhmmssZ")
    elif date[:8] != found["date"]:
        wrong.append(f"x-amz-date: {date} is not of the day in the scope, {found['date']}")
    return Scope(service, found["region"], found["key"]), wrong
