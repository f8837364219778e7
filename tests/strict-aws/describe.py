"""Pages for the Describe calls of EC2 that moto answers in one piece whatever MaxResults says."""

import base64

from moto.ec2.responses.amis import AmisResponse
from moto.ec2.responses.elastic_block_store import ElasticBlockStore
from moto.ec2.responses.elastic_network_interfaces import ElasticNetworkInterfaces

from images import fail


def paged(original, key, ids):
    def method(self):
        limit, token = self.params.get("MaxResults"), self.params.get("NextToken")
        if limit is not None and self.params.get(ids):
            fail("InvalidParameterCombination", f"The parameter {ids} cannot be used with the parameter maxResults")
        if limit is not None and not 5 <= limit <= 1000:
            fail("InvalidParameterValue", f"Value ({limit}) for parameter maxResults is invalid: 5 to 1000.")
        start = 0
        if token is not None:
            try:
                start = int(base64.b64decode(token, validate=True))
            except ValueError:
                fail("InvalidParameterValue", "NextToken is none that a page ended with.")
        answer = original(self)
        rows = answer.result[key]
        end = len(rows) if limit is None else start + limit
        answer.result[key] = rows[start:end]
        if end < len(rows):
            answer.result["NextToken"] = base64.b64encode(str(end).encode()).decode()
        return answer

    return method


def apply():
    for owner, name, key, ids in (
        (AmisResponse, "describe_images", "Images", "ImageIds"),
        (ElasticBlockStore, "describe_snapshots", "Snapshots", "SnapshotIds"),
        (ElasticBlockStore, "describe_volumes", "Volumes", "VolumeIds"),
        (ElasticNetworkInterfaces, "describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceIds"),
    ):
        setattr(owner, name, paged(getattr(owner, name), key, ids))
