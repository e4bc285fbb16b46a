"""Memory that a device stands before, on Unicorn.

While it is shown, it is mapped as memory that cannot be written: the guest reads and executes it as fast as RAM, and
the native half hands each store to the device. While it is hidden, a device is mapped in its place.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any

from unicorn import unicorn_const as const
from unicorn.unicorn_py3 import unicorn as binding

from rrgdb.engine.memory import Ram, Region
from rrgdb.engine.unicorn.devices import Devices, check

_lib = binding.uclib


class MappedRom:
    """See ``rrgdb.engine.base.Rom``. ``moved`` hears that it is shown or hidden, ``changed`` of pages of RAM that were
    written."""

    def __init__(
        self,
        handle: Any,
        ram: Ram,
        region: Region,
        devices: Devices,
        callbacks: tuple[Any, Any],
        moved: Callable[[], None],
        changed: Callable[[Iterable[int]], None],
    ) -> None:
        self.region = region
        self.shown = True
        self.store = ctypes.cast(callbacks[1], ctypes.c_void_p).value or 0
        self._handle = handle
        self._ram = ram
        self._devices = devices
        self._callbacks = callbacks
        self._moved = moved
        self._changed = changed

    @property
    def size(self) -> int:
        return self.region.size

    def read(self, offset: int, length: int) -> bytes:
        return self._ram.read(self.region.base + offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._changed(self._ram.write(self.region.base + offset, data))

    def show(self, shown: bool) -> None:
        if shown == self.shown:
            return
        base, size = ctypes.c_uint64(self.region.base), ctypes.c_uint64(self.region.size)
        check(_lib.uc_mem_unmap(self._handle, base, size), f"memory at {self.region.base:#x}")
        self.shown = shown
        self.map()

    def map(self) -> None:
        """Where it is not mapped yet."""
        region = self.region
        if self.shown:
            error = _lib.uc_mem_map_ptr(
                self._handle,
                ctypes.c_uint64(region.base),
                ctypes.c_uint64(region.size),
                ctypes.c_uint32(const.UC_PROT_READ | const.UC_PROT_EXEC),
                ctypes.c_void_p(self._ram.address + region.offset),
            )
            check(error, f"memory at {region.base:#x}")
        else:
            self._devices.show(region.base, region.size, self._callbacks)
        self._moved()
