"""The last witness: qemu-nbd serves our images to a reader that knows nothing of qcow2."""

from __future__ import annotations

import random
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rrgdb.qcow2 import Image
from rrgdb_tests.qcow2.test_options import texts
from rrgdb_tests.qcow2.test_qemu import scribble

pytestmark = pytest.mark.skipif(not shutil.which("qemu-nbd"), reason="needs qemu-nbd (Debian: qemu-utils)")

NO_ZEROES, READ, DISCONNECT = 2, 0, 2


class Reader:
    """A client of the NBD protocol (fixed newstyle handshake, simple replies)."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        assert self.take(16) == b"NBDMAGICIHAVEOPT"
        self.take(2)
        link.sendall(struct.pack(">I8sII", 1 | NO_ZEROES, b"IHAVEOPT", 1, 0))
        self.size, _ = struct.unpack(">QH", self.take(10))

    def take(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self.link.recv(length - len(data))
            assert more, "the server hung up"
            data += more
        return data

    def read(self, offset: int, length: int) -> bytes:
        self.link.sendall(struct.pack(">IHHQQI", 0x25609513, 0, READ, 7, offset, length))
        assert struct.unpack(">IIQ", self.take(16)) == (0x67446698, 0, 7)
        return self.take(length)

    def close(self) -> None:
        self.link.sendall(struct.pack(">IHHQQI", 0x25609513, 0, DISCONNECT, 0, 0, 0))


@contextmanager
def served(path: Path, *args: str) -> Iterator[Reader]:
    """``qemu-nbd`` returns when it listens, and its server ends with its only client."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as link:
        where = f"{directory}/nbd"
        subprocess.run(
            ["qemu-nbd", "--fork", "-r", "-f", "qcow2", "-k", where, *args, str(path)], check=True, timeout=60
        )
        link.settimeout(60)
        link.connect(where)
        reader = Reader(link)
        yield reader
        reader.close()


@pytest.mark.parametrize(
    "options",
    [{}, {"cluster_size": 512, "version": 2}, {"cluster_size": 4096, "compression": "zstd", "refcount_bits": 64}],
    ids=str,
)
def test_nbd(tmp_path: Path, options: dict[str, Any]) -> None:
    path, shadow = tmp_path / "a", bytearray(1 << 20)
    with Image.create(path, len(shadow), **options) as image:
        scribble(image, shadow, 1)
        image.write_compressed(0, texts(3, 262_144))
        shadow[:262_144] = texts(3, 262_144)
        image.create_snapshot("then")
        kept = bytes(shadow)
        scribble(image, shadow, 2)
    rng = random.Random(1)
    for content, args in ((bytes(shadow), ()), (kept, ("-l", "snapshot.name=then"))):
        with served(path, *args) as reader:
            assert reader.size == len(content)
            for _ in range(20):
                offset = rng.randrange(len(content) - 1)
                length = min(rng.randrange(1, 100_000), len(content) - offset)
                assert reader.read(offset, length) == content[offset : offset + length]
