"""Physical memory that holds page tables and nothing else, and Unicorn as the judge of what they say."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine.paging import ReadPhysical
from rrgdb.engine.unicorn.engine import UnicornEngine, _lib


def memory(entries: Mapping[int, int]) -> ReadPhysical:
    """``entries`` by physical address."""

    def read(address: int, _size: int) -> int:
        if address not in entries:
            raise MemoryFault(address)
        return entries[address]

    return read


def mapped_for_both(engine: UnicornEngine, address: int) -> bool:
    """Whether ``address`` is mapped, and to the same place, for Unicorn's walk and for ours."""
    physical = ctypes.c_uint64()
    error = _lib.uc_vmem_translate(engine._handle, ctypes.c_uint64(address), ctypes.c_int(1), ctypes.byref(physical))
    try:
        found = engine.translate(address)
    except MemoryFault:
        assert error, hex(address)
        return False
    assert not error, hex(address)
    assert physical.value == found, hex(address)
    return True
