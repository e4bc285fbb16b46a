"""What the probes look at of this process."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import replace
from pathlib import Path

import pytest

from rrgdb.engine.base import EngineError
from rrgdb.engine.unicorn.probes import aarch64, armv7m, structure, thumb
from rrgdb.engine.unicorn.probes.cpu import Cpus
from rrgdb.engine.unicorn.probes.structure import holding


def test_what_is_mapped_may_have_any_name(tmp_path: Path) -> None:
    file = tmp_path / "b\udcfccher \u2020"
    file.write_bytes(bytes(mmap.PAGESIZE))
    before = len(structure.mappings("r--"))
    with file.open("rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ):
        assert len(structure.mappings("r--")) == before + 1
    assert set(structure.memory()) <= set(structure.mappings())


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
