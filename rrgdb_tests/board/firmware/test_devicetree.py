"""Device trees: there and back, against the device tree compiler, and one clear line for whatever is none."""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrgdb.board.firmware.devicetree import (
    MAX_BLOB,
    MAX_DEPTH,
    MAX_NAME,
    DeviceTreeError,
    Node,
    Value,
    cells,
    decode,
    decode_blob,
    encode,
    raw,
)

CELL = st.integers(0, 0xFFFFFFFF)
STRING = st.text("aZ09 /,é\n", max_size=6)
VALUES: st.SearchStrategy[Value] = st.one_of(
    CELL,
    st.lists(CELL, max_size=4).map(tuple),
    STRING,
    st.lists(STRING, max_size=3).map(tuple),
    st.binary(max_size=24),
    st.none(),
)
NAMES = st.text("az0,._+-#?", min_size=1, max_size=6)
TREES = st.recursive(
    st.builds(Node, NAMES, st.dictionaries(NAMES, VALUES, max_size=3)),
    lambda below: st.builds(Node, NAMES, st.dictionaries(NAMES, VALUES, max_size=3), st.lists(below, max_size=3)),
    max_leaves=6,
).map(lambda node: Node("", node.properties, node.children))
RESERVED = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 2**64 - 1)), max_size=3).map(tuple)

TREE = Node(
    "",
    {"#address-cells": 2, "compatible": ("linux,dummy-virt", "b"), "model": "m", "empty": None},
    [
        Node("memory@80000000", {"reg": cells(0x80000000, 0x1_0000_0000), "device_type": "memory"}),
        Node("soc", {"ranges": b""}, [Node("serial@10000000", {"b": b"\1\2\3\4\5"}), Node("serial@0", {"b": b"x"})]),
    ],
)
SOURCE = """/dts-v1/;
/memreserve/ 0x1000 0x2000;
/ {
    #address-cells = <2>; compatible = "linux,dummy-virt", "b"; model = "m"; empty;
    memory@80000000 { reg = <0 0x80000000 1 0>; device_type = "memory"; };
    soc { ranges; serial@10000000 { b = [01 02 03 04 05]; }; serial@0 { b = [78]; }; };
};
"""


def bare(node: Node) -> Node:
    """As it comes back: values are bytes."""
    return Node(node.name, {k: raw(v) or None for k, v in node.properties.items()}, [bare(c) for c in node.children])


@given(TREES, RESERVED, CELL)
def test_there_and_back(tree: Node, reserved: tuple[tuple[int, int], ...], cpu: int) -> None:
    data = encode(tree, reserved, cpu)
    blob = decode_blob(data + b"behind")
    assert (blob.root, blob.reserved, blob.boot_cpu) == (bare(tree), reserved, cpu)
    assert encode(blob.root, blob.reserved, blob.boot_cpu) == data


def test_the_compiler_makes_the_same_blob() -> None:
    if shutil.which("dtc") is None:
        pytest.skip("package device-tree-compiler")
    made = subprocess.run(["dtc", "-I", "dts", "-O", "dtb"], input=SOURCE.encode(), capture_output=True, check=True)
    assert encode(TREE, [(0x1000, 0x2000)]) == made.stdout


@settings(max_examples=20, deadline=None)
@given(TREES, RESERVED)
def test_the_compiler_reads_the_same_tree(tree: Node, reserved: tuple[tuple[int, int], ...]) -> None:
    if shutil.which("dtc") is None:
        pytest.skip("package device-tree-compiler")
    command = ["dtc", "-q", "-f", "-I", "dtb", "-O", "dtb"]
    data = encode(tree, reserved)
    assert decode(subprocess.run(command, input=data, capture_output=True, check=True).stdout) == bare(tree)


def test_nodes_are_found() -> None:
    soc = TREE.child("soc")
    assert soc is not None
    assert soc.child("serial") is soc.children[0]
    assert soc.child("serial@0") is soc.children[1]
    assert TREE.child("memory@0") is None
    assert [path for path, _ in TREE.walk()] == [
        "/",
        "/memory@80000000",
        "/soc",
        "/soc/serial@10000000",
        "/soc/serial@0",
    ]
    root = Node()
    assert root.ensure("chosen") is root.ensure("chosen")
    assert len(root.children) == 1


@pytest.mark.parametrize(
    "tree",
    [
        Node("", {"a": 1 << 32}),
        Node("", {"a": (-1,)}),
        Node("", {"a": "x\0"}),
        Node("", {"a b": 1}),
        Node("", {"": 1}),
        Node("", {"a" * (MAX_NAME + 1): 1}),
        Node("", {}, [Node("")]),
        Node("", {}, [Node("a/b")]),
        Node("", {}, [Node("ä")]),
        Node("", {"a": bytes(MAX_BLOB)}),
    ],
)
def test_trees_that_the_format_cannot_hold(tree: Node) -> None:
    with pytest.raises(DeviceTreeError):
        encode(tree)


def test_depth_is_bounded() -> None:
    def nested(depth: int) -> Node:
        tree = Node("n")
        for _ in range(depth - 2):
            tree = Node("n", {}, [tree])
        return Node("", {}, [tree])

    assert decode(encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(DeviceTreeError, match="deep"):
        encode(nested(MAX_DEPTH + 1))
    begin = struct.pack(">I4s", 1, b"n\0")
    with pytest.raises(DeviceTreeError, match="deep"):
        decode(blob(struct.pack(">II", 1, 0) + begin * 100_000))


def blob(nodes: bytes, names: bytes = b"a\0b\0", reservations: bytes = bytes(16), **header: int) -> bytes:
    at = 40 + len(reservations)
    fields = {
        "magic": 0xD00DFEED,
        "total": at + len(nodes) + len(names),
        "structure": at,
        "strings": at + len(nodes),
        "reserved": 40,
        "version": 17,
        "compatible": 16,
        "cpu": 0,
        "strings_size": len(names),
        "size": len(nodes),
    }
    return struct.pack(">10I", *{**fields, **header}.values()) + reservations + nodes + names


ROOT = struct.pack(">II", 1, 0)
CLOSE = struct.pack(">II", 2, 9)
A = struct.pack(">IIII", 3, 4, 0, 7)


def test_what_the_hostile_cases_are_made_of_is_right() -> None:
    nop = struct.pack(">I", 4)
    assert decode(blob(nop + ROOT + nop + A + nop + CLOSE)) == Node("", {"a": b"\0\0\0\7"})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF" + bytes(60),
        blob(ROOT + CLOSE)[:-1],
        blob(ROOT + CLOSE, magic=1),
        blob(ROOT + CLOSE, total=39),
        blob(ROOT + CLOSE, total=0xFFFFFFFF),
        blob(ROOT + CLOSE, version=16),
        blob(ROOT + CLOSE, compatible=18),
        blob(ROOT + CLOSE, structure=57),
        blob(ROOT + CLOSE, structure=0xFFFFFFF0),
        blob(ROOT + CLOSE, size=12),
        blob(ROOT + CLOSE, strings=0xFFFFFFF0),
        blob(ROOT + CLOSE, strings_size=5),
        blob(ROOT + CLOSE, reserved=41),
        blob(ROOT + CLOSE, reserved=0xFFFFFFF8),
        blob(ROOT + CLOSE, reservations=b"\xff" * 16),
        blob(CLOSE),
        blob(struct.pack(">I", 9)),
        blob(ROOT + CLOSE[:4]),
        blob(ROOT + CLOSE[:4] + ROOT + CLOSE),
        blob(ROOT + A + A + CLOSE),
        blob(A + ROOT + CLOSE),
        blob(ROOT + ROOT + CLOSE[:4] + CLOSE),
        blob(ROOT + struct.pack(">I4s", 1, b"n\0") + CLOSE[:4] + A + CLOSE),
        blob(ROOT + struct.pack(">I4s", 1, b"n/n\0") + CLOSE[:4] + CLOSE),
        blob(ROOT + struct.pack(">I4s", 1, b"nnnn")),
        blob(ROOT + struct.pack(">III", 3, 0xFFFFFFFF, 0) + CLOSE),
        blob(ROOT + struct.pack(">III", 3, 0, 4) + CLOSE),
        blob(ROOT + struct.pack(">III", 3, 0, 0) + CLOSE, names=b"aaaa"),
        blob(ROOT + struct.pack(">III", 3, 0, 1) + CLOSE),
        blob(ROOT + struct.pack(">I", 5) + CLOSE),
    ],
)
def test_blobs_that_are_none(data: bytes) -> None:
    with pytest.raises(DeviceTreeError, match=r"^tree\.dtb: offset 0x[0-9a-f]+: .+; expected ") as error:
        decode(data, "tree.dtb")
    assert "\n" not in str(error.value)


def test_a_root_with_a_name_has_none() -> None:
    whole = encode(TREE)
    at = whole.index(b"\0\0\0\1\0\0\0\0") + 4
    assert decode(whole[:at] + b"!" + whole[at + 1 :]) == decode(whole)


@given(st.data())
def test_damaged_blobs(data: st.DataObject) -> None:
    whole = bytearray(encode(TREE, [(1, 2)]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DeviceTreeError):
        blob_ = decode_blob(bytes(whole))
        assert decode_blob(encode(blob_.root, blob_.reserved, blob_.boot_cpu)) == blob_


@given(st.binary(max_size=400))
def test_any_structure(structure: bytes) -> None:
    with contextlib.suppress(DeviceTreeError):
        decode(blob(structure))
