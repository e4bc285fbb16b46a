"""What the probes look at of this process."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.engine.base import EngineError
from rrgdb.engine.unicorn.families import FAMILIES
from rrgdb.engine.unicorn.probes import aarch64, armv7m, experiments, structure, thumb
from rrgdb.engine.unicorn.probes.cpu import Cpus
from rrgdb.engine.unicorn.probes.structure import holding

STATES = st.lists(st.binary(min_size=24, max_size=24).map(lambda b: bytes(x & 3 for x in b)), min_size=2, max_size=4)
MAPPED = [(0x1000, 0x3000), (0x3000, 0x4000), (0x6000, 0x7000)]


def test_what_is_mapped_may_have_any_name(tmp_path: Path) -> None:
    file = tmp_path / "b\udcfccher \u2020"
    file.write_bytes(bytes(mmap.PAGESIZE))
    before = len(structure.mappings("r--"))
    with file.open("rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ):
        assert len(structure.mappings("r--")) == before + 1
    assert set(structure.memory()) <= set(structure.mappings())


def test_memory_that_is_gone_by_now_holds_nothing() -> None:
    """An engine that nobody needs any more may be closed between the look at what is mapped and the search."""
    marks = b"marks of a test"
    with mmap.mmap(-1, 4 * mmap.PAGESIZE) as gone:
        gone[100 : 100 + len(marks)] = marks
        start = ctypes.addressof(ctypes.c_char.from_buffer(gone))
        span = (start, start + len(gone))
        assert structure._occurrences([span], marks) == [start + 100]
    assert structure._occurrences([span], marks) == []


@pytest.mark.parametrize("cpus", [thumb.CPUS, armv7m.CPUS, aarch64.CPUS], ids=lambda c: c.family)
def test_memory_that_holds_the_marks_is_no_cpu(cpus: Cpus) -> None:
    """What was looked for may stand elsewhere in this process, and something in the engine may lead there."""
    uc, marks = cpus._marked(1)
    decoys = [ctypes.create_string_buffer(cpus._packed(turn)) for turn in range(4)]
    first, _ = cpus._ways[0]
    base = ctypes.c_uint64.from_address(uc._uch.value + first).value
    ways = tuple((first, ctypes.addressof(decoy) - base) for decoy in decoys)
    assert holding(uc, ways, marks) == (ways[1],)
    believed = replace(cpus)
    believed.__dict__["_ways"] = (*ways, *cpus._ways)
    right = cpus.address(uc)
    assert believed.address(uc) == right
    assert all(not 0 <= ctypes.addressof(d) - right < 1 << 12 for d in decoys)
    believed.__dict__["_ways"] = ways
    with pytest.raises(EngineError, match="its CPU"):
        believed.address(uc)


@pytest.mark.parametrize(
    ("address", "most", "size"),
    [
        (0x0FFF, 1, 0),
        (0x1000, 0x10, 0x10),
        (0x2FF0, 0x100, 0x100),
        (0x3800, 0x10000, 0x800),
        (0x1000, 0x10000, 0x3000),
        (0x4000, 0x10, 0),
        (0x5FFF, 0x10, 0),
        (0x6FFF, 0x10, 1),
        (0x7000, 0x10, 0),
        ((1 << 64) - 1, 0x10, 0),
    ],
)
def test_no_more_can_be_read_than_is_mapped_in_a_row(address: int, most: int, size: int) -> None:
    assert structure.readable(address, most, MAPPED) == size
    assert structure.readable(address, most, []) == 0


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=8), st.binary(min_size=1, max_size=3))
def test_what_spans_share_is_searched_once(begins: list[tuple[int, int]], marks: bytes) -> None:
    content = ctypes.create_string_buffer(((marks + b"\x55") * 40)[:80], 80)
    base = ctypes.addressof(content)
    spans = [(begin, begin + size) for begin, size in begins]
    covered = {at for start, end in spans for at in range(start, end)}
    here = [at for at in range(80) if content.raw.startswith(marks, at) and {*range(at, at + len(marks))} <= covered]
    # Between two spans that only touch as well, and none twice.
    found = structure._occurrences([(base + start, base + end) for start, end in spans], marks)
    assert found == [base + at for at in here]


@given(STATES, st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_bytes_that_changed_as_was_asked_for(states: list[bytes], values: list[int]) -> None:
    places = range(24)
    assert structure.changed(*states[:2]) == [at for at in places if states[0][at] != states[1][at]]
    words = tuple(at for at in range(0, 24, 8) if len({s[at : at + 8] for s in states}) > 1)
    assert experiments.different(states) == words
    if values[0] != values[1]:
        wanted = values[: len(states)]
        found = [at for at in places if [state[at] for state in states] == wanted]
        assert structure.taking(states, wanted) == found


@given(
    st.binary(max_size=40).map(lambda b: bytes(x & 1 for x in b)), st.sampled_from([b"\0" * 4, b"\1\0\0\0", b"\0\1"])
)
def test_a_value_is_found_at_each_multiple_of_four(state: bytes, value: bytes) -> None:
    wanted = {at for at in range(0, len(state), 4) if state[at : at + len(value)] == value}
    assert experiments.found_at(state, value) == wanted


@pytest.mark.parametrize("family", ["riscv64", "aarch64", "x86_64"])
def test_an_engine_that_was_there_before_is_not_this_one(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies behind an engine's structure may be the remains of another's."""
    uc = structure.scratch(FAMILIES[family].arch, FAMILIES[family].mode)
    uc.mem_map(0x10000, 0x1000)  # Unicorn makes the CPU when it needs it first
    found = structure.mapping_at(uc, FAMILIES[family].arch, family)
    assert uc._uch.value < found < uc._uch.value + structure.no_sync()
    whole = structure.structure
    monkeypatch.setattr(structure, "structure", lambda *given: whole(*given) * 2)
    assert structure.mapping_at(uc, FAMILIES[family].arch, family) == found
