"""Memory that a device stands before, on Unicorn.

Mapped as memory that cannot be written, the guest reads and executes it as fast as RAM, and the native half hands each
store to the device. While it is hidden, the device is mapped in its place, and from then on until the guest executes it
or reads much of it: a change of what is mapped takes Unicorn 0.1 ms a MiB, and drivers of flash go back and forth for
each sector. The guest cannot tell, for the device reads as the memory that it shows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any

from unicorn import unicorn_const as const
from unicorn.unicorn_py3 import unicorn as binding

from rrgdb.engine.base import ReadCallback, WriteCallback
from rrgdb.engine.memory import Ram, Region
from rrgdb.engine.unicorn.devices import Devices, check

_READ_ONLY = const.UC_PROT_READ | const.UC_PROT_EXEC
MANY_READS = 256
"""through the device, after which mapping the memory pays"""

_lib = binding.uclib


class MappedRom:
    """See ``rrgdb.engine.base.Rom``. ``moved`` hears of what is mapped anew, ``changed`` of pages of RAM that were
    written. ``mapped``: the memory is, and not the device."""

    def __init__(
        self,
        handle: Any,
        ram: Ram,
        region: Region,
        devices: Devices,
        read: ReadCallback,
        write: WriteCallback,
        moved: Callable[[], None],
        changed: Callable[[Iterable[int]], None],
    ) -> None:
        self.region = region
        self.mapped = True
        self._shown = True
        self._reads = 0
        self._handle = handle
        self._ram = ram
        self._devices = devices
        self._read_device = read
        self._callbacks = devices.callbacks(region.base, self._read, write)
        self.store = ctypes.cast(self._callbacks[1], ctypes.c_void_p).value or 0
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
        self._shown = shown
        if not shown:
            self._map(False)

    def settle(self) -> None:
        """Between two runs: map it, if that pays by now."""
        if self._shown and self._reads >= MANY_READS:
            self._map(True)

    def fetched(self, address: int) -> bool:
        """The guest could not execute physical ``address``. Whether it can now."""
        inside = self.region.base <= address < self.region.base + self.region.size
        if not inside or not self._shown or self.mapped:
            return False
        self._map(True)
        return True

    def _read(self, offset: int, size: int) -> int:
        self._reads += self._shown
        return self._read_device(offset, size)

    def _map(self, mapped: bool) -> None:
        self._reads = 0
        if mapped == self.mapped:
            return
        base, size = ctypes.c_uint64(self.region.base), ctypes.c_uint64(self.region.size)
        check(_lib.uc_mem_unmap(self._handle, base, size), f"memory at {self.region.base:#x}")
        self.mapped = mapped
        self.map()

    def map(self) -> None:
        """Where it is not mapped yet."""
        region = self.region
        if self.mapped:
            error = _lib.uc_mem_map_ptr(
                self._handle,
                ctypes.c_uint64(region.base),
                ctypes.c_uint64(region.size),
                ctypes.c_uint32(_READ_ONLY),
                ctypes.c_void_p(self._ram.address + region.offset),
            )
            check(error, f"memory at {region.base:#x}")
            # What uc_mem_map_ptr makes gets the stores that the hook has taken, until its permissions are set again.
            error = _lib.uc_mem_protect(
                self._handle, ctypes.c_uint64(region.base), ctypes.c_uint64(region.size), ctypes.c_uint32(_READ_ONLY)
            )
            check(error, f"memory at {region.base:#x}")
        else:
            self._devices.show(region.base, region.size, self._callbacks)
        self._moved()
