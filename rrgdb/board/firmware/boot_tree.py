"""The device tree that a kernel or firmware is handed: the board's or the user's, with what this boot adds to it.

As QEMU 7.2 makes it: what is added stands before what was there, and the tree has the room that QEMU gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rrgdb.board.firmware.devicetree import (
    MAX_BLOB,
    DeviceTreeError,
    Node,
    TreeFacts,
    Value,
    decode_blob,
    encode,
    raw,
)
from rrgdb.board.firmware.image import ImageError
from rrgdb.board.firmware.kernels import File

OWN_ROOM = 1 << 20
SPARE = 10_000
CELL_BYTES = 4


@dataclass
class BootTree:
    """``room``: bytes that it takes in memory; ``name`` is for messages."""

    name: str
    root: Node
    room: int
    reserved: tuple[tuple[int, int], ...] = ()
    boot_cpu: int = 0

    def choose(self, properties: Mapping[str, Value]) -> None:
        """Properties of /chosen, which is made if it is not there."""
        chosen = self.root.child("chosen")
        if chosen is None:
            chosen = self.add_first(Node("chosen"))
        for name, value in properties.items():
            before = {} if name in chosen.properties else {name: value}
            chosen.properties = {**before, **chosen.properties, name: value}

    def add_first(self, node: Node) -> Node:
        """A new node before all others."""
        self.root.children.insert(0, node)
        return node

    def remove(self, name: str) -> None:
        """The nodes below the root of that name, with any unit address."""
        self.root.children = [child for child in self.root.children if child.name.partition("@")[0] != name]

    def cells_of(self, name: str) -> int:
        """The root's number of cells for an address or a size: 1 or 2."""
        data = raw(self.root.properties.get(name))
        number = int.from_bytes(data, "big")
        if len(data) != CELL_BYTES or number not in (1, 2):
            raise self.error(f"{name} {data[:8].hex() or 'missing'} in the root", "a cell, 1 or 2")
        return number

    def error(self, what: str, expected: str) -> ImageError:
        return ImageError(self.name, 0, f"device tree: {what}", expected)

    def blob(self, *, packed: bool) -> bytes:
        """The flattened tree, ``packed`` or saying that it is as long as its room, without the zeros at its end. Raises
        ``ImageError``."""
        try:
            return encode(self.root, self.reserved, self.boot_cpu, 0 if packed else self.room).rstrip(b"\0")
        except DeviceTreeError as error:
            raise ImageError(self.name, 0, str(error), "a tree that leaves room for what is added") from error


def boot_tree(dtb: File | None, facts: TreeFacts) -> BootTree:
    """The user's tree or, without one, the board's. Raises ``ImageError``."""
    if dtb is not None:
        try:
            blob = decode_blob(dtb.data, dtb.name)
        except DeviceTreeError as error:
            raise ImageError(dtb.name, *error.where) from error
        room = 2 * (len(dtb.data) + SPARE)
        if room > MAX_BLOB:
            raise ImageError(dtb.name, 0, f"device tree of {len(dtb.data)} bytes", f"at most {MAX_BLOB // 2 - SPARE}")
        return BootTree(dtb.name, blob.root, room, blob.reserved, blob.boot_cpu)
    assert facts.spec.tree is not None
    return BootTree("device tree", facts.spec.tree(facts), OWN_ROOM)
