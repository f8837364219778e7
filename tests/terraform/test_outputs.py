"""The outputs are what gateway.toml and the plan need; the documents fit into what IAM takes; scripts of instances are scripts."""

import base64
import configparser
import json
import pathlib
import shutil
import subprocess
import tomllib

import pytest
from states import load, resources


def outputs(state):
    return {name: each["value"] for name, each in load(state)["outputs"].items()}


def test_plan_toml():
    plan = tomllib.loads(outputs("off")["plan_toml"])
    assert set(plan) == {"cloud", "region", "volume_key", "deadline", "subnet"}
    assert (plan["cloud"], plan["region"]) == ("aws", "eu-central-1")
    assert plan["volume_key"].startswith("arn:aws:kms:eu-central-1:123456789012:key/")
    assert plan["deadline"] == {
        "sweep": "arn:aws:states:eu-central-1:123456789012:stateMachine:acme-site1-sweep",
        "role": "arn:aws:iam::123456789012:role/acme-site1-deadline",
        "group": "sparesite",
    }
    found = {each["values"]["id"]: each for each in resources("off") if each["type"] == "aws_subnet"}
    assert [subnet["name"] for subnet in plan["subnet"]] == ["servers", "servers-b", "part"]
    for subnet in plan["subnet"]:
        assert set(subnet) == {"name", "id", "test", "range", "zone"}
        for key, network in (("id", "recovery"), ("test", "test")):
            made = found[subnet[key]]
            assert made["values"]["cidr_block"] == subnet["range"] and made["values"]["availability_zone"] == subnet["zone"]
            module = "module.part[0]" if subnet["name"] == "part" else "module.network"
            vpc = next(each["values"]["id"] for each in resources("off") if each["address"] == f"{module}.aws_vpc.{network}")
            assert made["values"]["vpc_id"] == vpc


def test_gateway_toml():
    assert tomllib.loads(outputs("off")["gateway_toml"]) == {"vault": {"url": "s3://acme-dr-site1/site1"}}
    credentials = configparser.ConfigParser()
    credentials.read_string(outputs("off")["gateway_credentials"])
    assert credentials["default"]["role_arn"] == "arn:aws:iam::123456789012:role/acme-site1-gateway"
    assert credentials["default"]["source_profile"] == "key" and not credentials["key"]["aws_secret_access_key"]


def test_what_the_day_adds_is_the_runners_and_the_ways_in():
    """As the printed page has it: what ends with the runner begins with `module.runner`."""
    added = {each["address"] for each in resources("on")} - {each["address"] for each in resources("off")}
    assert {address.split(".")[1].split("[")[0] for address in added} == {"runner", "reach"}


def test_the_runner_is_of_the_site_s_own_image_where_it_names_one():
    images = [next(each["values"]["image_id"] for each in resources(state) if each["address"] == "module.runner.aws_launch_template.runner")
              for state in ("off", "on")]  # fmt: skip
    assert images[0].startswith("resolve:ssm:") and images[1] == "ami-00000000000000001"


@pytest.mark.parametrize("state", ["off", "on"])
def test_documents_fit(state):
    """Inline policies, white space left out: 10,240 characters a role, 2,048 a user; a bucket's policy 20 KB, a trust 2,048."""
    sizes = {}
    for each in resources(state):
        values = each["values"]
        if each["type"] in ("aws_iam_role_policy", "aws_iam_user_policy"):
            owner = ("role", values["role"]) if "role" in values else ("user", values["user"])
            sizes[owner] = sizes.get(owner, 0) + len(json.dumps(json.loads(values["policy"]), separators=(",", ":")))
        elif each["type"] == "aws_s3_bucket_policy":
            assert len(values["policy"]) < 20480
        elif each["type"] == "aws_iam_role":
            assert len(values["assume_role_policy"]) <= 2048
    assert len(sizes) >= 9
    for (kind, name), size in sizes.items():
        assert size <= (10240 if kind == "role" else 2048), name


def test_names_fit():
    """A role's name has at most 64 characters, and the names of sites at most 32."""
    for each in resources("on"):
        if each["type"] == "aws_iam_role":
            assert len(each["values"]["name"]) - len("acme-site1") + 32 <= 64


def scripts():
    found = {each["address"]: each["values"] for each in resources("on")}
    template = found["module.runner.aws_launch_template.runner"]["user_data"]
    return {"runner": base64.b64decode(template).decode(), "reach": found["module.reach.aws_instance.reach[0]"]["user_data"]}


@pytest.mark.parametrize("name", ["runner", "reach"])
def test_user_data_is_a_script_without_secret(name):
    text = scripts()[name]
    assert len(text) < 16384 and text.startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-"], input=text, text=True, check=True)
    assert "BEGIN " not in text and "AKIA" not in text


def test_the_runner_refuses_another_program(tmp_path):
    """The script itself, with an `aws` that brings the wrong bytes, then the right ones."""
    text = scripts()["runner"]
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert empty in text
    text = text.replace("/usr/local/bin/", f"{tmp_path}/").replace("/etc/profile.d/", f"{tmp_path}/")
    for body, good in (("evil", False), ("", True)):
        (tmp_path / "aws").write_text(f'#!/bin/sh\nfor file; do :; done\nprintf %s "{body}" >"$file"\n')
        (tmp_path / "aws").chmod(0o755)
        done = subprocess.run(["bash"], input=text, text=True, capture_output=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False)
        assert (done.returncode == 0) == good, done.stderr
        assert (tmp_path / "sparesite-restore").exists() == good
    assert (tmp_path / "sparesite.sh").read_text() == "export SPARESITE_VAULT=s3://acme-dr-site1/site1 AWS_REGION=eu-central-1\n"


def test_the_runner_fetches_what_init_stores():
    """By default: the version of this repository, under the name that `sparesite-gateway init` gives it on 64-bit Linux."""
    top = pathlib.Path(__file__).parents[2]
    version = tomllib.loads((top / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    named = (top / "gateway/src/commands/init/tools.rs").read_text()
    assert 'RESTORE: &str = "sparesite-restore";' in named and 'format!("{RESTORE}-{arch}-{system}")' in named
    assert f"--key 'site1/tools/{version}/sparesite-restore-x86_64-linux' " in scripts()["runner"]


def test_the_vpn_instance_fetches_its_key_and_knows_its_peers(tmp_path):
    """The script itself, with stand-ins for all that it calls."""
    text = scripts()["reach"].replace("/etc/", f"{tmp_path}/etc/")
    (tmp_path / "etc/sysctl.d").mkdir(parents=True)
    for name in ("systemctl", "curl", "dnf", "sysctl", "ip", "aws"):
        says = {"aws": "echo PRIVATE=", "ip": "echo default via 100.64.0.1 dev ens5 proto dhcp"}.get(name, "exit 0")
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n{says}\n')
        (tmp_path / name).chmod(0o755)
    subprocess.run(["bash"], input=text, text=True, check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    made = tmp_path / "etc/wireguard/wg0.conf"
    assert made.stat().st_mode & 0o777 == 0o600
    sections = [part.split("\n") for part in made.read_text().split("\n\n")]
    assert "PrivateKey = PRIVATE=" in sections[0]
    assert [part[0] for part in sections[1:]] == ["# ada", "# grace", "# site"]
    assert sections[3][1:4] == ["[Peer]", "PublicKey = 1l8m0Qm0kH5Ck2cJ7J8u0Qbq3C1y6p6a6wqZbqk3gnE=", "AllowedIPs = 10.20.0.0/16"]
    assert 'oifname "ens5"' in (tmp_path / "etc/wireguard/out.nft").read_text()
    calls = (tmp_path / "calls").read_text()
    assert "--name /acme-site1/reach/private-key --with-decryption" in calls
    assert calls.index("systemctl restart systemd-resolved") < calls.index("curl") < calls.index("dnf install") < calls.index("wg-quick@wg0")
