"""The EBS direct APIs, in full: moto accepts wrong checksums, lengths, indices and counts and inherits nothing."""

import base64
import hashlib
import time
from threading import RLock

from moto.ec2.models import ec2_backends

from answers import AwsError, Reply, document
from blocks import BLOCK, PER_GIB, ZERO, DirectSnapshot

# EC2 state is moto's, which is not made for threads: whoever changes it holds this.
LOCK = RLock()
MAX_GIB = 65_536
MAX_PENDING = 100


def invalid(message, reason="INVALID_PARAMETER_VALUE"):
    return AwsError(400, "ValidationException", message, reason)


def handle(call, account, region):
    backend = ec2_backends[account][region]
    return OPERATIONS[call.action](backend, **call.parameters)


def find(backend, snapshot_id):
    snapshot = backend.snapshots.get(snapshot_id)
    if snapshot is None:
        raise AwsError(404, "ResourceNotFoundException",
                       f"The snapshot '{snapshot_id}' does not exist.", "SNAPSHOT_NOT_FOUND")  # fmt: skip
    if not isinstance(snapshot, DirectSnapshot):
        raise NotImplementedError(f"{snapshot_id} was not written through the EBS direct APIs: it has no content here")
    return snapshot


def readable(backend, snapshot_id):
    snapshot = find(backend, snapshot_id)
    if snapshot.status != "completed":
        raise invalid(f"The snapshot '{snapshot_id}' is {snapshot.status}, not completed.", "INVALID_SNAPSHOT_ID")
    return snapshot


def start(backend, VolumeSize, ParentSnapshotId=None, Tags=(), Description="", ClientToken=None,
          Encrypted=False, KmsKeyArn=None, Timeout=60):  # fmt: skip
    arguments = (VolumeSize, ParentSnapshotId, tuple((t["Key"], t.get("Value", "")) for t in Tags), Description,
                 Encrypted, KmsKeyArn, Timeout)  # fmt: skip
    with LOCK:
        # On the backend, so that a reset of moto forgets them with the rest.
        tokens = backend.__dict__.setdefault("strict_snapshot_tokens", {})
        if ClientToken in tokens:
            before, snapshot = tokens[ClientToken]
            if before != arguments:
                raise AwsError(409, "ConflictException",
                               "The client token was used before with other arguments.")  # fmt: skip
            return started(snapshot)
        if VolumeSize > MAX_GIB:
            raise invalid(f"A volume of {VolumeSize} GiB is above {MAX_GIB} GiB.", "INVALID_VOLUME_SIZE")
        parent = None
        if ParentSnapshotId is not None:
            if Encrypted or KmsKeyArn is not None:
                raise invalid("Encrypted and KmsKeyArn cannot be given with ParentSnapshotId.")
            parent = readable(backend, ParentSnapshotId)
            if VolumeSize < parent.volume_size:
                raise invalid(f"A volume of {VolumeSize} GiB is smaller than the parent's {parent.volume_size} GiB.",
                              "INVALID_VOLUME_SIZE")  # fmt: skip
        elif KmsKeyArn is not None and not Encrypted:
            raise invalid("KmsKeyArn is only for Encrypted=true.", "INVALID_DEPENDENCY_REQUEST")
        pending = sum(1 for s in backend.snapshots.values() if isinstance(s, DirectSnapshot) and s.completion is None)
        if pending >= MAX_PENDING:
            raise AwsError(400, "ConcurrentLimitExceededException",
                           f"{pending} snapshots are pending, which is the limit.")  # fmt: skip
        if Encrypted and KmsKeyArn is None:
            KmsKeyArn = backend.default_kms_key_id or backend._create_default_encryption_key()
        snapshot = DirectSnapshot(
            backend, VolumeSize, Description, parent,
            parent.encrypted if parent else Encrypted, parent.kms_key_id if parent else KmsKeyArn, Timeout,
        )  # fmt: skip
        backend.snapshots[snapshot.id] = snapshot
        snapshot.add_tags(dict(arguments[2]))
        if ClientToken is not None:
            tokens[ClientToken] = (arguments, snapshot)
    return started(snapshot)


def started(snapshot):
    answer = {
        "Description": snapshot.description,
        "SnapshotId": snapshot.id,
        "OwnerId": snapshot.owner_id,
        "Status": snapshot.status,
        "StartTime": snapshot.start_time.timestamp(),
        "VolumeSize": snapshot.volume_size,
        "BlockSize": BLOCK,
        "Tags": [{"Key": tag["key"], "Value": tag["value"]} for tag in snapshot.get_tags()],
        "SseType": "sse-kms" if snapshot.encrypted else "none",
    }
    if snapshot.parent:
        answer["ParentSnapshotId"] = snapshot.parent.id
    if snapshot.encrypted:
        answer["KmsKeyArn"] = snapshot.kms_key_id
    return document(201, answer)


def writable(backend, snapshot_id):
    snapshot = find(backend, snapshot_id)
    if snapshot.completion is not None:
        raise invalid(f"The snapshot '{snapshot_id}' is complete: blocks cannot be put.", "INVALID_SNAPSHOT_ID")
    return snapshot


def put(backend, SnapshotId, BlockIndex, BlockData, DataLength, Checksum, ChecksumAlgorithm, Progress=None):
    snapshot = writable(backend, SnapshotId)
    if DataLength != BLOCK:
        raise invalid(f"DataLength is {DataLength}, not {BLOCK}.", "INVALID_BLOCK")
    if len(BlockData) != DataLength:
        raise invalid(f"The body has {len(BlockData)} bytes, DataLength says {DataLength}.", "INVALID_BLOCK")
    if BlockIndex >= snapshot.volume_size * PER_GIB:
        raise invalid(f"Block {BlockIndex} is outside of a volume of {snapshot.volume_size} GiB.", "INVALID_BLOCK")
    digest = hashlib.sha256(BlockData).digest()
    if base64.b64encode(digest).decode() != Checksum:
        raise invalid(f"Checksum is not the SHA-256 of block {BlockIndex}.", "INVALID_BLOCK")
    with LOCK:
        writable(backend, SnapshotId).own[BlockIndex] = (ZERO if BlockData == ZERO else BlockData, digest)
    return Reply(201, b"", {"x-amz-Checksum": Checksum, "x-amz-Checksum-Algorithm": ChecksumAlgorithm})


def complete(backend, SnapshotId, ChangedBlocksCount, Checksum=None, ChecksumAlgorithm=None,
             ChecksumAggregationMethod=None):  # fmt: skip
    arguments = (ChangedBlocksCount, Checksum, ChecksumAlgorithm, ChecksumAggregationMethod)
    with LOCK:
        snapshot = find(backend, SnapshotId)
        if snapshot.completion is not None:
            if snapshot.completion != arguments:
                raise invalid(f"The snapshot '{SnapshotId}' was completed with other arguments.", "INVALID_SNAPSHOT_ID")
            return document(202, {"Status": snapshot.status})
        if ChangedBlocksCount != len(snapshot.own):
            raise invalid(f"ChangedBlocksCount is {ChangedBlocksCount}, {len(snapshot.own)} blocks were put.")
        given = [value is not None for value in arguments[1:]]
        if any(given) and not all(given):
            raise invalid("Checksum, ChecksumAlgorithm and ChecksumAggregationMethod go together.")
        if Checksum is not None and Checksum != aggregate(snapshot):
            raise invalid("Checksum is not the linear aggregate of the blocks' checksums.")
        snapshot.complete(arguments)
    return document(202, {"Status": "pending"})


def aggregate(snapshot):
    """SHA-256 over the raw digests of the blocks put, in index order. This encoding is unproven against AWS."""
    digests = b"".join(snapshot.own[index][1] for index in sorted(snapshot.own))
    return base64.b64encode(hashlib.sha256(digests).digest()).decode()


def get(backend, SnapshotId, BlockIndex, BlockToken):
    snapshot = readable(backend, SnapshotId)
    view = snapshot.view()
    if BlockIndex not in view:
        raise AwsError(404, "ResourceNotFoundException",
                       f"Block {BlockIndex} was never put in '{SnapshotId}'.", "SNAPSHOT_NOT_FOUND")  # fmt: skip
    if BlockToken != snapshot.token(BlockIndex):
        raise invalid(f"BlockToken is not that of block {BlockIndex} of '{SnapshotId}'.", "INVALID_BLOCK_TOKEN")
    data, digest = view[BlockIndex]
    return Reply(200, data, {
        "Content-Type": "application/octet-stream", "x-amz-Data-Length": str(BLOCK),
        "x-amz-Checksum": base64.b64encode(digest).decode(), "x-amz-Checksum-Algorithm": "SHA256",
    })  # fmt: skip


def list_blocks(backend, SnapshotId, NextToken=None, MaxResults=10_000, StartingBlockIndex=0):
    snapshot = readable(backend, SnapshotId)
    rows = [{"BlockIndex": i, "BlockToken": snapshot.token(i)} for i in sorted(snapshot.view())]
    return page("Blocks", rows, snapshot, NextToken, MaxResults, StartingBlockIndex)


def list_changed(backend, SecondSnapshotId, FirstSnapshotId=None, NextToken=None, MaxResults=10_000,
                 StartingBlockIndex=0):  # fmt: skip
    second = readable(backend, SecondSnapshotId)
    first = readable(backend, FirstSnapshotId) if FirstSnapshotId is not None else None
    if first and first.root is not second.root:
        raise invalid(f"'{FirstSnapshotId}' and '{SecondSnapshotId}' are not of one lineage.", "UNRELATED_SNAPSHOTS")
    old, new = first.view() if first else {}, second.view()
    rows = []
    for index in sorted(old.keys() | new.keys()):
        if index in old and index in new and old[index][1] == new[index][1]:
            continue
        row = {"BlockIndex": index}
        if index in old:
            row["FirstBlockToken"] = first.token(index)
        if index in new:
            row["SecondBlockToken"] = second.token(index)
        rows.append(row)
    return page("ChangedBlocks", rows, second, NextToken, MaxResults, StartingBlockIndex)


def page(name, rows, snapshot, token, limit, start):
    if token is not None:
        try:
            start = int(base64.b64decode(token, validate=True))
        except ValueError:
            raise invalid("NextToken is none that a page ended with.", "INVALID_PAGE_TOKEN") from None
    rows = [row for row in rows if row["BlockIndex"] >= start]
    answer = {name: rows[:limit], "VolumeSize": snapshot.volume_size, "BlockSize": BLOCK,
              "ExpiryTime": time.time() + 7 * 86_400}  # fmt: skip
    if rows[limit:]:
        answer["NextToken"] = base64.b64encode(str(rows[limit]["BlockIndex"]).encode()).decode()
    return document(200, answer)


OPERATIONS = {
    "StartSnapshot": start,
    "PutSnapshotBlock": put,
    "CompleteSnapshot": complete,
    "GetSnapshotBlock": get,
    "ListSnapshotBlocks": list_blocks,
    "ListChangedBlocks": list_changed,
}
