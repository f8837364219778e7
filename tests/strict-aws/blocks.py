"""A snapshot written through the EBS direct APIs: its blocks, what it inherits, how a volume of it reads."""

import hashlib
from functools import cached_property
from types import SimpleNamespace

from moto.ec2.models.elastic_block_store import Snapshot
from moto.ec2.utils import random_snapshot_id

BLOCK = 524_288
PER_GIB = (1 << 30) // BLOCK
ZERO = bytes(BLOCK)
# How often DescribeSnapshots is asked until a snapshot whose completion was accepted is completed: the third time.
ASKS = 3


class DirectSnapshot(Snapshot):
    """moto's snapshot, so that all of EC2 sees it, with the content that moto does not keep."""

    __module__ = Snapshot.__module__  # moto's metaclass reads the service out of it

    def __new__(cls, *_, **__):
        return object.__new__(cls)  # moto's would hold on to every instance, and to its blocks, for ever

    def __init__(self, backend, size, description, parent, encrypted, kms_key, timeout):
        # AWS names no real volume for these snapshots; moto reads size and id from one.
        volume = SimpleNamespace(id="vol-ffffffff", size=size)
        super().__init__(backend, random_snapshot_id(), volume, description, encrypted=encrypted, kms_key_id=kms_key)
        self.status = "pending"
        self.own = {}  # block index -> (bytes, SHA-256 digest)
        self.parent = parent
        self.timeout = timeout
        self.completion = None  # what CompleteSnapshot was asked with
        self.asks = 0

    @property
    def progress(self):
        return "100%" if self.status == "completed" else "0%"

    def complete(self, arguments):
        self.completion = arguments
        self.asks = ASKS

    def asked(self):
        """DescribeSnapshots looks at this snapshot."""
        if self.completion is not None and self.status == "pending":
            self.asks -= 1
            if self.asks <= 0:
                self.status = "completed"

    @property
    def root(self):
        return self.parent.root if self.parent else self

    def view(self):
        """The snapshot's blocks with the inherited ones."""
        return {**self.parent.view(), **self.own} if self.parent else self.own

    def token(self, index):
        return hashlib.sha256(f"{self.id}/{index}".encode()).hexdigest()

    @cached_property
    def _noise(self):
        return hashlib.shake_128(self.root.id.encode()).digest(2 * BLOCK)

    def unwritten(self, index):
        """What a volume reads where no block was ever put: decrypting nothing gives noise, not zeroes."""
        if not self.encrypted:
            return ZERO
        start = index * 4099 % BLOCK
        return self._noise[start : start + BLOCK]

    def image(self):
        """The bytes of a volume made from this snapshot."""
        view = self.view()
        for index in range(self.volume_size * PER_GIB):
            yield view[index][0] if index in view else self.unwritten(index)
