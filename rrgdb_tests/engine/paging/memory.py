"""Physical memory that holds page tables and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine.paging import ReadPhysical


def memory(entries: Mapping[int, int]) -> ReadPhysical:
    """``entries`` by physical address."""

    def read(address: int, _size: int) -> int:
        if address not in entries:
            raise MemoryFault(address)
        return entries[address]

    return read
