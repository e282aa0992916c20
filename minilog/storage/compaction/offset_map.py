"""OffsetMap: the latest offset of each key, within a bound on memory.

Keys up to 63 bytes are kept as they are, so for them there are no collisions to think about. A
longer key is represented by its 64-byte BLAKE2b digest, which no short key can equal. Kafka keeps
MD5 digests of all keys in a flat buffer: there that saves memory, and a collision made on purpose
drops records. In Python a dict of exact keys is several times faster than any table written out by
hand, and its cost is known well enough to be bounded: ``bytes_used`` counts for each key what
CPython needs for it at worst (the measured figure is in tests/unit/storage).
"""

from __future__ import annotations

from hashlib import blake2b

DIGEST_BYTES = 64
ENTRY_BYTES = 160
"""Beyond the key's own bytes: its object, the offset's, and a slot in a dict that has just
grown."""


class OffsetMap:
    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes_used = 0
        self._latest: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._latest)

    @property
    def is_full(self) -> bool:
        return self.bytes_used >= self.bytes_max

    def put(self, key: bytes, offset: int) -> None:
        """``key`` was seen at ``offset``, which is higher than any before."""
        if len(key) >= DIGEST_BYTES:
            key = blake2b(key, digest_size=DIGEST_BYTES).digest()
        latest = self._latest
        count = len(latest)
        latest[key] = offset
        if len(latest) > count:
            self.bytes_used += ENTRY_BYTES + len(key)

    def latest(self, key: bytes) -> int:
        """The highest offset noted for ``key``; -1 when there is none."""
        if len(key) >= DIGEST_BYTES:
            key = blake2b(key, digest_size=DIGEST_BYTES).digest()
        return self._latest.get(key, -1)
