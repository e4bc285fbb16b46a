"""Property test: any sequence of operations against bytes in memory."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rrgdb.qcow2 import Image, Snapshot, View, tables
from rrgdb_tests.qcow2.conftest import Qemu

DISK = 150_016
VM_CLUSTERS = 200


@dataclass(frozen=True)
class Content:
    disk: bytes = bytes(DISK)
    vm: tuple[tuple[int, bytes], ...] = ()  # (cluster, bytes), sorted

    def put_vm(self, pages: dict[int, bytes]) -> Content:
        merged = {**dict(self.vm), **pages}
        return replace(self, vm=tuple(sorted((k, v) for k, v in merged.items() if any(v))))

    def put_disk(self, offset: int, data: bytes) -> Content:
        return replace(self, disk=self.disk[:offset] + data + self.disk[offset + len(data) :])

    def vm_bytes(self, size: int) -> bytes:
        pages = dict(self.vm)
        return b"".join(pages.get(i, bytes(size)) for i in range(VM_CLUSTERS))


OPERATION = st.one_of(
    st.tuples(st.just("write"), st.integers(0, DISK - 1), st.integers(1, 20_000), st.integers(0, 255)),
    st.tuples(st.just("discard"), st.integers(0, DISK - 1), st.integers(1, 60_000)),
    st.tuples(
        st.just("pages"), st.dictionaries(st.integers(0, VM_CLUSTERS - 1), st.integers(0, 3), min_size=1, max_size=30)
    ),
    st.tuples(st.just("vm"), st.integers(0, 100_000), st.integers(1, 5000), st.integers(0, 255)),
    st.tuples(st.just("clear"), st.integers(0, 100_000), st.integers(1, 60_000)),
    st.tuples(st.just("snapshot"), st.booleans()),
    st.tuples(st.just("snapshot"), st.booleans()),
    st.tuples(st.just("delete"), st.integers(0, 100)),
    st.tuples(st.just("apply"), st.integers(0, 100)),
    st.tuples(st.just("flush")),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("diff"), st.integers(0, 100), st.integers(0, 100)),
)


class Run:
    """An image and what it must hold."""

    def __init__(self, path: Path, cluster_size: int) -> None:
        self.path, self.size = path, cluster_size
        self.image = Image.create(path, DISK, cluster_size=cluster_size)
        self.now = Content()
        self.kept: list[tuple[Snapshot, Content]] = []

    def patch_vm(self, offset: int, data: bytes) -> None:
        flat = bytearray(self.now.vm_bytes(self.size))
        data = data[: max(0, len(flat) - offset)]
        flat[offset : offset + len(data)] = data
        first, last = offset // self.size, -(-(offset + len(data)) // self.size)
        self.now = self.now.put_vm({i: bytes(flat[i * self.size : (i + 1) * self.size]) for i in range(first, last)})

    def step(self, kind: str, *args: object) -> None:
        getattr(self, kind)(*args)

    def write(self, offset: int, length: int, value: int) -> None:
        data = bytes([value]) * min(length, DISK - offset)
        self.image.write(offset, data)
        self.now = self.now.put_disk(offset, data)

    def discard(self, offset: int, length: int) -> None:
        length = min(length, DISK - offset)
        self.image.discard(offset, length)
        low, end = -(-offset // self.size) * self.size, offset + length
        high = end if end == DISK else end // self.size * self.size
        if low < high:
            self.now = self.now.put_disk(low, bytes(high - low))

    def pages(self, pages: dict[int, int]) -> None:
        contents = {i: bytes([v]) * self.size for i, v in pages.items()}
        self.image.write_vmstate([(i * self.size, data) for i, data in contents.items()])
        self.now = self.now.put_vm(contents)

    def vm(self, offset: int, length: int, value: int) -> None:
        length = min(length, VM_CLUSTERS * self.size - offset)
        if length > 0:
            self.image.write_vmstate([(offset, bytes([value]) * length)])
            self.patch_vm(offset, bytes([value]) * length)

    def clear(self, offset: int, length: int) -> None:
        self.image.clear_vmstate(offset, length)
        self.patch_vm(offset, bytes(length))

    def snapshot(self, commit: bool) -> None:
        taken = self.image.create_snapshot(
            f"s{len(self.kept)}", vm_state_size=VM_CLUSTERS * self.size, icount=7, commit=commit
        )
        self.kept.append((taken, self.now))

    def delete(self, which: int) -> None:
        if self.kept:
            self.image.delete_snapshot(self.kept.pop(which % len(self.kept))[0])

    def apply(self, which: int) -> None:
        if self.kept:
            taken, self.now = self.kept[which % len(self.kept)]
            self.image.apply_snapshot(taken)

    def flush(self) -> None:
        self.image.flush()

    def reopen(self) -> None:
        self.image.close()
        self.image = Image.open(self.path, writable=True)

    def diff(self, a: int, b: int) -> None:
        sides: list[tuple[Snapshot | None, Content]] = [(None, self.now), *self.kept]
        (left, one), (right, two) = sides[a % len(sides)], sides[b % len(sides)]
        found = set(self.image.diff_vmstate(left, right, 0, VM_CLUSTERS * self.size))
        unequal = {i * self.size for i in range(VM_CLUSTERS) if dict(one.vm).get(i) != dict(two.vm).get(i)}
        assert unequal <= found
        if left == right:
            assert not found

    def verify(self) -> None:
        image = self.image
        length = VM_CLUSTERS * self.size
        assert image.check().clean, image.check()
        assert image.read(0, DISK) == self.now.disk
        assert image.read_vmstate(0, length) == self.now.vm_bytes(self.size)
        assert list(image.snapshots) == [taken for taken, _ in self.kept]
        for taken, content in self.kept:
            view = image.view(taken)
            assert view.read(0, DISK) == content.disk
            assert view.read_vmstate(0, length) == content.vm_bytes(self.size)
            every = view.read_vmstate_clusters(range(0, length, self.size))
            assert b"".join(every) == content.vm_bytes(self.size)
            self.verify_scattered(view, content)

    def verify_scattered(self, view: View, content: Content) -> None:
        """Clusters go where they are told to, runs of them in whatever order."""
        size, random = self.size, Random(len(self.kept))
        numbers = list(range(VM_CLUSTERS))
        cut = random.randrange(VM_CLUSTERS)
        numbers = random.sample(numbers[:cut], cut) + numbers[cut:]
        buffers = [bytearray(b"?" * size) for _ in numbers]
        view.read_vmstate_clusters_into([n * size for n in numbers], buffers)
        whole = content.vm_bytes(size)
        assert buffers == [whole[n * size : (n + 1) * size] for n in numbers]


def play(cluster_size: int, operations: list[tuple[object, ...]], qemu: Qemu | None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        run = Run(Path(directory) / "a.qcow2", cluster_size)
        for kind, *args in operations:
            run.step(str(kind), *args)
        run.verify()
        run.reopen()
        run.verify()
        run.image.close()
        if qemu is not None:
            qemu.check(run.path)


SCRIPT = st.lists(OPERATION, max_size=25)
QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
@given(cluster_size=st.sampled_from([512, 4096]), operations=SCRIPT)
def test_operations(cluster_size: int, operations: list[tuple[object, ...]]) -> None:
    play(cluster_size, operations, None)


@settings(max_examples=40, deadline=None, suppress_health_check=QUIET)
@given(operations=SCRIPT)
def test_operations_with_a_tiny_cache(monkeypatch: pytest.MonkeyPatch, operations: list[tuple[object, ...]]) -> None:
    """A cache that grows from one L2 table to eight, and then evicts all the time."""
    monkeypatch.setattr(tables, "_CACHE_BYTES", 0)
    play(512, operations, None)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=QUIET)
@given(cluster_size=st.sampled_from([512, 1024, 4096, 65536]), operations=st.lists(OPERATION, max_size=60))
def test_operations_judged_by_qemu(qemu: Qemu, cluster_size: int, operations: list[tuple[object, ...]]) -> None:
    play(cluster_size, operations, qemu)
