"""The DNS hooks. Route 53 answers by moto; nsupdate is a stand-in that keeps what it was told."""

import json
import os
import pathlib
import subprocess

import boto3
import pytest
from moto import mock_aws

HOOKS = pathlib.Path(__file__).parents[2] / "terraform" / "aws" / "reach" / "hooks"
RECORDS = """# site → cloud
mail.corp.example 60 10.20.1.20 10.120.1.20
*.apps.corp.example. 60 10.20.1.21 10.120.1.21
"""


def hook(tmp_path, name, word, program, records=RECORDS, **extra):
    (tmp_path / "records").write_text(records, encoding="utf-8")
    tool = tmp_path / program
    tool.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >>{tmp_path}/words\n[ "$1" = -v ] && cat >>{tmp_path}/stdin\n'
                    f'[ "$2" = change-resource-record-sets ] && printf "%s" "$6" >{tmp_path}/batch && echo /change/C1\nexit 0\n')
    tool.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RECORDS": str(tmp_path / "records"), **extra}
    return subprocess.run([HOOKS / name, *word], env=environment, text=True, capture_output=True, check=False)


@mock_aws
def test_route53(tmp_path, monkeypatch):
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "x")
    client = boto3.client("route53", region_name="us-east-1")
    zone = client.create_hosted_zone(Name="corp.example", CallerReference="1")["HostedZone"]["Id"]
    for word, mail in (("cut-over", "10.120.1.20"), ("cut-over", "10.120.1.20"), ("back", "10.20.1.20")):
        done = hook(tmp_path, "route53.sh", [word], "aws", ZONE_ID=zone)
        assert done.returncode == 0, done.stderr
        client.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=json.loads((tmp_path / "batch").read_text()))
        found = {each["Name"]: each["ResourceRecords"] for each in client.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"] if each["Type"] == "A"}
        assert found["mail.corp.example."] == [{"Value": mail}]
        assert len(found) == 2
    words = (tmp_path / "words").read_text()
    assert "resource-record-sets-changed\n--id\n/change/C1" in words


def test_rfc2136(tmp_path):
    done = hook(tmp_path, "rfc2136.sh", ["cut-over"], "nsupdate", SERVER="192.0.2.53", ZONE="corp.example", TSIG_KEY="/k")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "words").read_text().split() == ["-v", "-k", "/k"]
    assert (tmp_path / "stdin").read_text() == (
        "server 192.0.2.53\nzone corp.example\n"
        "update delete mail.corp.example. A\nupdate add mail.corp.example. 60 A 10.120.1.20\n"
        "update delete *.apps.corp.example. A\nupdate add *.apps.corp.example. 60 A 10.120.1.21\nsend\n"
    )


@pytest.mark.parametrize("name,program", [("route53.sh", "aws"), ("rfc2136.sh", "nsupdate")])
@pytest.mark.parametrize("word,records,code", [
    ([], RECORDS, 2),
    (["forward"], RECORDS, 2),
    (["back"], "", 1),
    (["back"], "mail.corp.example 60 10.20.1.20\n", 1),
    (["back"], 'mail"},{ 60 10.20.1.20 10.120.1.20\n', 1),
    (["back"], "mail.corp.example 60 10.20.1.20;send 10.120.1.20\n", 1),
])
def test_what_is_wrong_changes_nothing(tmp_path, name, program, word, records, code):
    done = hook(tmp_path, name, word, program, records, ZONE_ID="Z", SERVER="s", ZONE="z", TSIG_KEY="/k")
    assert done.returncode == code, done.stderr
    assert not (tmp_path / "words").exists()
