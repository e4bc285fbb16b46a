"""What a snapshot consists of besides RAM: the state blob.

Layout, little-endian: magic ``RRST``, u16 version, u16 number of parts, then for each part a u32 length and the bytes,
then the xxh3 64-bit checksum of all before it. Parts: engine build (text), CPU, devices, door, guest's RAM size (u64),
digest of RAM (8 bytes; ``rrgdb.timeline.digest``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import xxhash

from rrgdb.errors import Error

MAX_BYTES = (8 << 20) - 4
"""a state blob has at most this many bytes: with its length, the room before RAM in the VM state"""
_HEAD = struct.Struct("<4sHH")
_MAGIC, _VERSION, _PARTS = b"RRST", 1, 6


class StateError(Error):
    """Bytes that are no state blob, or not of this guest: one line."""


@dataclass(frozen=True, slots=True)
class GuestState:
    """CPU, devices and door of a guest at one icount. ``build`` names the engine that can load ``cpu``; ``ram_digest``
    is what RAM must have once its pages are in place."""

    build: str
    cpu: bytes
    devices: bytes
    door: bytes
    ram_bytes: int
    ram_digest: bytes

    def encode(self) -> bytes:
        size = self.ram_bytes.to_bytes(8, "little")
        parts = (self.build.encode(), self.cpu, self.devices, self.door, size, self.ram_digest)
        body = _HEAD.pack(_MAGIC, _VERSION, _PARTS) + b"".join(struct.pack("<I", len(p)) + p for p in parts)
        blob = body + xxhash.xxh3_64_digest(body)
        if len(blob) > MAX_BYTES:
            raise StateError(f"state of {len(blob)} bytes, expected at most {MAX_BYTES}")
        return blob

    @classmethod
    def decode(cls, blob: bytes) -> GuestState:
        if len(blob) < _HEAD.size + 8 or len(blob) > MAX_BYTES or xxhash.xxh3_64_digest(blob[:-8]) != blob[-8:]:
            raise StateError(f"state of {len(blob)} bytes: expected a whole blob with its checksum")
        magic, version, count = _HEAD.unpack_from(blob)
        if (magic, version, count) != (_MAGIC, _VERSION, _PARTS):
            raise StateError(f"expected state version {_VERSION}, got {version}")
        parts: list[bytes] = []
        at = _HEAD.size
        for _ in range(count):
            if at + 4 > len(blob) - 8:
                raise StateError("state ends inside a part")
            (length,) = struct.unpack_from("<I", blob, at)
            at += 4
            if at + length > len(blob) - 8:
                raise StateError("state ends inside a part")
            parts.append(blob[at : at + length])
            at += length
        if at != len(blob) - 8 or (len(parts[4]), len(parts[5])) != (8, 8):
            raise StateError("state has bytes left over")
        build, cpu, devices, door, ram, digest = parts
        try:
            return cls(build.decode(), cpu, devices, door, int.from_bytes(ram, "little"), digest)
        except UnicodeDecodeError:
            raise StateError("state names no engine build") from None
