"""What the probes look at of this process."""

from __future__ import annotations

import mmap
from pathlib import Path

from rrgdb.engine.unicorn.probes import structure


def test_what_is_mapped_may_have_any_name(tmp_path: Path) -> None:
    file = tmp_path / "b\udcfccher \u2020"
    file.write_bytes(bytes(mmap.PAGESIZE))
    before = len(structure.mappings("r--"))
    with file.open("rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ):
        assert len(structure.mappings("r--")) == before + 1
    assert set(structure.memory()) <= set(structure.mappings())
