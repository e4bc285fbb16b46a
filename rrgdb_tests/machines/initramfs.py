"""What Linux is given to run in: an initramfs of busybox, modules and a script, and a disk with one partition.

The same input makes the same bytes.
"""

from __future__ import annotations

import lzma
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from stat import S_IFCHR, S_IFDIR, S_IFREG

PROMPT = "guest# "


def init(commands: str) -> str:
    """A script that runs ``commands`` in a shell with all modules loaded, and then powers the machine off."""
    return f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin PS1='{PROMPT}'
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module; done
{commands}
poweroff -f
"""


TYPED_AT = init("setsid cttyhack sh")
"""Its shell reads commands from the console."""
SECTOR = 512
PARTITION_AT = 1 << 20
LINUX = 0x83


def initramfs(kernel: Path, busybox: Path, modules: Sequence[str], script: str = TYPED_AT) -> bytes:
    """A cpio archive ("newc") with ``script`` as its init. ``kernel`` and ``busybox`` are unpacked packages;
    ``modules`` are loaded in that order, each behind those that it needs; a name that is no module of the kernel is
    part of it."""
    (shell,) = (path for path in busybox.rglob("bin/busybox") if path.is_file())
    archive = _Archive()
    for name in ("bin", "dev", "mnt", "modules", "proc", "sys", "tmp"):
        archive.add(name, S_IFDIR | 0o755)
    archive.add("dev/console", S_IFCHR | 0o600, device=(5, 1))
    archive.add("bin/busybox", S_IFREG | 0o755, shell.read_bytes())
    archive.add("init", S_IFREG | 0o755, script.encode())
    for number, (name, data) in enumerate(_with_needs(kernel, modules)):
        archive.add(f"modules/{number:02}-{name}.ko", S_IFREG | 0o644, data)
    return archive.end()


class _Archive:
    """ "newc": a header of 8-digit hexadecimal numbers, the name and the data, each padded to 4 bytes."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._entries = 0

    def add(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._entries += 1
        named = name.encode() + b"\0"
        fields = (self._entries, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(named), 0)
        self._data += b"070701" + b"".join(b"%08X" % field for field in fields) + named
        self._data += bytes(-len(self._data) % 4) + data
        self._data += bytes(-len(self._data) % 4)

    def end(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return bytes(self._data)


def _with_needs(kernel: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Modules and what they need, each once and behind its needs; the build's own list of them is made by depmod only
    where the package is installed."""
    files = {_name(path): path for path in sorted(kernel.rglob("*.ko*"))}
    done: set[str] = set()
    for name in names:
        yield from _one(files, name, done)


def _one(files: dict[str, Path], name: str, done: set[str]) -> Iterator[tuple[str, bytes]]:
    if name in done or name not in files:
        return
    done.add(name)
    data = files[name].read_bytes()
    if files[name].suffix == ".xz":
        data = lzma.decompress(data)
    needs = re.search(rb"\0depends=([^\0]*)\0", data)
    for need in needs[1].decode().split(",") if needs else ():
        yield from _one(files, need.replace("-", "_"), done)
    yield name, data


def _name(path: Path) -> str:
    return path.name.split(".")[0].replace("-", "_")


def partitioned_disk(path: Path, megabytes: int, content: Path) -> None:
    """A disk image with one partition: ext4, with what lies in directory ``content``."""
    size = megabytes << 20
    first, sectors = PARTITION_AT // SECTOR, (size - PARTITION_AT) // SECTOR
    entry = bytes((0, 0xFE, 0xFF, 0xFF, LINUX, 0xFE, 0xFF, 0xFF)) + b"".join(
        n.to_bytes(4, "little") for n in (first, sectors)
    )
    with path.open("wb") as f:
        f.truncate(size)
        f.seek(446)
        f.write(entry)
        f.seek(510)
        f.write(b"\x55\xaa")
    command = ["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-d", str(content)]
    command += ["-E", f"offset={PARTITION_AT}", str(path), f"{sectors // 2}k"]
    subprocess.run(command, check=True, capture_output=True)
