"""From `terraform show -json` of the applied example: the documents that are judged, and the names that the tables use.

    render.py STATE.json >documents.json
"""

import json
import sys


def resources(module):
    yield from module.get("resources", [])
    for child in module.get("child_modules", []):
        yield from resources(child)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        found = list(resources(json.load(file)["values"]["root_module"]))

    def all_of(kind):
        return [(each["address"], each["values"]) for each in found if each["type"] == kind and each["mode"] == "managed"]

    def one(kind, ending):
        (values,) = [values for address, values in all_of(kind) if address.endswith(ending)]
        return values

    principals = {}
    for kind in ("role", "user"):
        for address, values in all_of(f"aws_iam_{kind}"):
            policies = [json.loads(policy["policy"]) for _, policy in all_of(f"aws_iam_{kind}_policy") if policy[kind] == values["name"]]
            name = address.split(".")[-1] + ("-user" if kind == "user" else "")
            name = name.removesuffix("[0]").replace("_", "-")
            principals[name] = {"arn": values["arn"], "kind": kind, "policies": policies}
            if kind == "role":
                principals[name]["trust"] = json.loads(values["assume_role_policy"])
    region, account = "eu-central-1", "123456789012"
    ec2 = f"arn:aws:ec2:{region}"
    bucket = one("aws_s3_bucket", ".vault")["bucket"]
    subnets = {address.rsplit(".", 2)[-1]: values["id"] for address, values in all_of("aws_subnet")}
    print(json.dumps({
        "principals": principals,
        "bucket": bucket,
        "bucket_policy": json.loads(one("aws_s3_bucket_policy", ".vault")["policy"]),
        "keys": {values["arn"]: json.loads(values["policy"]) for _, values in all_of("aws_kms_key")},
        "endpoints": {"runner-s3": json.loads(one("aws_vpc_endpoint", ".s3")["policy"])},
        "names": {
            "bucket": f"arn:aws:s3:::{bucket}",
            "objects": f"arn:aws:s3:::{bucket}/site1",
            "vault-key": one("aws_kms_key", ".vault")["arn"],
            "volume-key": one("aws_kms_key", ".volumes")["arn"],
            "recovery-vpc": f"{ec2}:{account}:vpc/{one('aws_vpc', 'network.aws_vpc.recovery')['id']}",
            "part-vpc": f"{ec2}:{account}:vpc/{one('aws_vpc', 'part[0].aws_vpc.recovery')['id']}",
            "test-vpc": f"{ec2}:{account}:vpc/{one('aws_vpc', 'network.aws_vpc.test')['id']}",
            "recovery-subnet": f"{ec2}:{account}:subnet/" + subnets['recovery["servers"]'],
            "part-subnet": f"{ec2}:{account}:subnet/" + subnets['recovery["part"]'],
            "test-subnet": f"{ec2}:{account}:subnet/" + subnets['test["servers"]'],
            "recovery-group": f"{ec2}:{account}:security-group/{one('aws_default_security_group', 'network.aws_default_security_group.recovery')['id']}",
            "machine": one("aws_sfn_state_machine", ".sweep")["arn"],
            "ec2": f"{ec2}:{account}",
            "ec2-public": f"{ec2}:",
            "region": region,
            "account": account,
            **{f"{name}-arn": principal["arn"] for name, principal in principals.items()},
        },
    }, indent=1))


if __name__ == "__main__":
    main()
