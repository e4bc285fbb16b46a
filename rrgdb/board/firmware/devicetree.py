"""Device trees: as nodes, and as the flattened blob that a guest gets.

Devicetree Specification 0.4, chapter 5 (format version 17). A blob may come from anybody: whatever it holds, ``decode``
returns nodes or raises ``DeviceTreeError``, in time and memory bounded by ``MAX_BLOB``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rrgdb.errors import Error

if TYPE_CHECKING:
    from rrgdb.board.spec import BoardSpec, RamLayout

MAGIC = 0xD00DFEED
VERSION = 17
LAST_COMPATIBLE = 16
MAX_BLOB = 2 << 20
"""bytes; Linux on AArch64 takes no larger one"""
MAX_DEPTH = 64
MAX_NAME = 255
NAME = f"1 to {MAX_NAME} printable characters, no space or slash"
BEGIN_NODE, END_NODE, PROPERTY, NOP, END = 1, 2, 3, 4, 9
_HEADER = struct.Struct(">10I")
_RESERVED = struct.Struct(">QQ")
_CELL = struct.Struct(">I")
_PROPERTY = struct.Struct(">II")

Value = int | tuple[int, ...] | str | tuple[str, ...] | bytes | None
"""of a property: one cell of 32 bits, cells, a string, a list of strings, bytes as they are, or nothing"""


class DeviceTreeError(Error):
    """A blob, or a tree, that is none. ``where``: of a blob, the offset, what is there, and what was expected."""

    def __init__(self, text: str, where: tuple[int, str, str] = (0, "", "")) -> None:
        super().__init__(text)
        self.where = where


@dataclass
class Node:
    """A node and those below it. ``name`` is with its unit address (``serial@10000000``), of the root empty."""

    name: str = ""
    properties: dict[str, Value] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    def child(self, name: str) -> Node | None:
        """The first child of the name, or, if ``name`` has no unit address, the first one that is it but for that."""
        return next((c for c in self.children if name in (c.name, c.name.partition("@")[0])), None)

    def ensure(self, name: str) -> Node:
        """The child of the name; made behind the others if there is none."""
        found = self.child(name)
        if found is None:
            found = Node(name)
            self.children.append(found)
        return found

    def walk(self) -> Iterator[tuple[str, Node]]:
        """(path, node) of this node, which counts as the root, and of all below it, parents first."""
        waiting = [("/", self)]
        while waiting:
            path, node = waiting.pop()
            yield path, node
            below = path.rstrip("/")
            waiting += [(f"{below}/{child.name}", child) for child in reversed(node.children)]


@dataclass(frozen=True, slots=True)
class TreeFacts:
    """What a board's tree depends on: ``cpu`` is the name of the CPU model, ``disks`` the number of disks."""

    spec: BoardSpec
    ram: RamLayout
    cpu: str
    disks: int


@dataclass(frozen=True, slots=True)
class Blob:
    """What a flattened tree holds: ``reserved`` are (address, bytes) of memory that the tree's user must not touch,
    ``boot_cpu`` the physical number of the CPU that boots."""

    root: Node
    reserved: tuple[tuple[int, int], ...] = ()
    boot_cpu: int = 0


def cells(*values: int) -> tuple[int, ...]:
    """Each value, of 64 bits, as two cells: what ``reg`` holds where addresses and sizes take two."""
    return tuple(cell for value in values for cell in (value >> 32, value & 0xFFFFFFFF))


def raw(value: Value) -> bytes:
    """The bytes of a property. DeviceTreeError for cells that are no 32 bits and strings that hold a NUL."""
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    items = value if isinstance(value, tuple) else (value,)
    try:
        return b"".join(_string(item) if isinstance(item, str) else _CELL.pack(item) for item in items)
    except struct.error as error:
        raise DeviceTreeError(f"device tree: cells {items}; expected numbers of 32 bits") from error


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if 0 in data:
        raise DeviceTreeError(f"device tree: string {text!r}; expected one without a NUL")
    return data + b"\0"


def encode(root: Node, reserved: Sequence[tuple[int, int]] = (), boot_cpu: int = 0, room: int = 0) -> bytes:
    """The flattened tree: header, memory reservations, structure, strings; no gaps but for alignment, and zeros up to
    ``room`` bytes, if not 0, for what is still added. Equal trees give equal bytes. DeviceTreeError for names and
    values that the format cannot hold, or that have no room."""
    structure, strings = bytearray(), bytearray()
    offsets: dict[str, int] = {}
    waiting: list[tuple[Node | None, int]] = [(root, 1)]
    while waiting:
        node, depth = waiting.pop()
        if node is None:
            structure += _CELL.pack(END_NODE)
            continue
        if depth > MAX_DEPTH:
            raise DeviceTreeError(f"device tree: {depth} nodes deep; expected at most {MAX_DEPTH}")
        structure += _CELL.pack(BEGIN_NODE) + _aligned(b"\0" if node is root else _name(node.name))
        for name, value in node.properties.items():
            if name not in offsets:
                offsets[name] = len(strings)
                strings += _name(name)
            data = raw(value)
            structure += _CELL.pack(PROPERTY) + _PROPERTY.pack(len(data), offsets[name]) + _aligned(data)
        waiting.append((None, depth))
        waiting += [(child, depth + 1) for child in reversed(node.children)]
    structure += _CELL.pack(END)
    reservations = b"".join(_RESERVED.pack(*entry) for entry in (*reserved, (0, 0)))
    at_structure = _HEADER.size + len(reservations)
    at_strings = at_structure + len(structure)
    needed = at_strings + len(strings)
    total = room or needed
    if max(needed, total) > MAX_BLOB or needed > total:
        raise DeviceTreeError(f"device tree: {needed} bytes; expected at most {min(total, MAX_BLOB)}")
    header = _HEADER.pack(
        MAGIC,
        total,
        at_structure,
        at_strings,
        _HEADER.size,
        VERSION,
        LAST_COMPATIBLE,
        boot_cpu,
        len(strings),
        len(structure),
    )
    return (header + reservations + structure + strings).ljust(total, b"\0")


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _is_name(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and name.isascii() and name.isprintable() and not set(name) & {"/", " "}


def _name(name: str) -> bytes:
    if not _is_name(name):
        raise DeviceTreeError(f"device tree: name {name!r}; expected {NAME}")
    return name.encode() + b"\0"


def decode(data: bytes, name: str = "device tree") -> Node:
    """The root of a flattened tree, with the values as bytes (None if they are empty); ``name`` is for messages.
    Raises DeviceTreeError."""
    return decode_blob(data, name).root


def decode_blob(data: bytes, name: str = "device tree") -> Blob:
    """As ``decode``, with what stands beside the nodes. Bytes behind the blob's own length are not looked at."""
    return _Decoder(data, name).blob()


class _Decoder:
    def __init__(self, data: bytes, name: str) -> None:
        self.source = name
        if len(data) < _HEADER.size or _CELL.unpack_from(data)[0] != MAGIC:
            raise self.error(0, f"starts with {data[:4].hex() or 'nothing'}", f"a flattened device tree ({MAGIC:x})")
        (_, total, structure, strings, self.reservations, version, compatible, self.boot_cpu, strings_size, size) = (
            _HEADER.unpack_from(data)
        )
        if compatible > VERSION or version < VERSION:
            raise self.error(20, f"version {version}, compatible with {compatible}", f"version {VERSION}")
        if not _HEADER.size <= total <= min(len(data), MAX_BLOB):
            raise self.error(4, f"{total} bytes", f"{_HEADER.size} to {min(len(data), MAX_BLOB)}")
        if structure % 4 or structure + size > total:
            raise self.error(
                8, f"structure at {structure:#x}, {size} bytes", f"within {total} bytes, at a multiple of 4"
            )
        if strings + strings_size > total:
            raise self.error(12, f"strings at {strings:#x}, {strings_size} bytes", f"within {total} bytes")
        self.data = data[:total]
        self.at, self.end = structure, structure + size
        self.strings = data[strings : strings + strings_size]
        self.names: dict[int, str] = {}

    def error(self, offset: int, what: str, expected: str) -> DeviceTreeError:
        text = f"{self.source}: offset {offset:#x}: {what}; expected {expected}"
        return DeviceTreeError(text, (offset, what, expected))

    def blob(self) -> Blob:
        return Blob(self._root(), self._reserved(), self.boot_cpu)

    def _reserved(self) -> tuple[tuple[int, int], ...]:
        found: list[tuple[int, int]] = []
        at = self.reservations
        if at % 8:
            raise self.error(16, f"memory reservations at {at:#x}", "a multiple of 8")
        while at + _RESERVED.size <= len(self.data):
            entry = _RESERVED.unpack_from(self.data, at)
            if entry == (0, 0):
                return tuple(found)
            found.append(entry)
            at += _RESERVED.size
        raise self.error(16, "memory reservations without an end", "a last one of zeros")

    def _root(self) -> Node:
        """Nodes that are open are a stack of their own: depth is the blob's to choose."""
        above: list[Node] = []
        root: Node | None = None
        while True:
            at, token = self.at, self._cell()
            if token == BEGIN_NODE:
                node = Node(self._node_name(root=not above))
                if above:
                    above[-1].children.append(node)
                elif root is None:
                    root = node
                else:
                    raise self.error(at, "a second root", "one")
                above.append(node)
                if len(above) > MAX_DEPTH:
                    raise self.error(at, f"{len(above)} nodes deep", f"at most {MAX_DEPTH}")
            elif token == END_NODE and above:
                above.pop()
            elif token == PROPERTY and above and not above[-1].children:
                self._property(above[-1])
            elif token == END and root is not None and not above:
                return root
            elif token != NOP:
                raise self.error(
                    at, f"token {token:#x} out of place", "nodes, properties before the nodes below, an end"
                )

    def _cell(self) -> int:
        if self.at + 4 > self.end:
            raise self.error(self.at, "structure is cut off", f"an end token ({END}) within it")
        (value,) = _CELL.unpack_from(self.data, self.at)
        self.at += 4
        return int(value)

    def _node_name(self, root: bool) -> str:
        at, end = self.at, self.data.find(0, self.at, min(self.end, self.at + MAX_NAME + 1))
        self.at = end + 4 & -4
        if root and end == at:
            return ""
        name = self._checked(at, self.data[at : max(end, 0)])
        return "" if root else name

    def _property(self, node: Node) -> None:
        at = self.at
        length, offset = self._cell(), self._cell()
        if self.at + length > self.end:
            raise self.error(at, f"property of {length} bytes", f"at most {self.end - self.at}")
        name = self._property_name(at + 4, offset)
        if name in node.properties:
            raise self.error(at, f"property {name} a second time", "each property once")
        node.properties[name] = self.data[self.at : self.at + length] or None
        self.at = self.at + length + 3 & -4

    def _property_name(self, at: int, offset: int) -> str:
        name = self.names.get(offset)
        if name is None:
            end = self.strings.find(0, offset, offset + MAX_NAME + 1)
            name = self.names[offset] = self._checked(at, self.strings[offset : max(end, 0)])
        return name

    def _checked(self, at: int, name: bytes) -> str:
        text = name.decode("latin-1")
        if not _is_name(text):
            raise self.error(at, f"name {text!r}", f"{NAME}, and a NUL")
        return text
