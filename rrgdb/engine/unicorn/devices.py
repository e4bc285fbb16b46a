"""Devices of a board on Unicorn: memory and I/O ports that Python answers for."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import unicorn
from unicorn import unicorn_const as const
from unicorn.unicorn_py3 import unicorn as binding

from rrgdb.engine.base import EngineError, ReadCallback, WriteCallback

_lib = binding.uclib
_MMIO_READ = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint, ctypes.c_void_p)
_MMIO_WRITE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint, ctypes.c_uint64, ctypes.c_void_p)
_PORT_IN = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p)
_PORT_OUT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)

Accessed = Callable[[int, int, bool], None]
"""(physical address, bytes, whether it is a store)"""


def check(error: int, what: str) -> None:
    if error:
        raise EngineError(f"{what}: {unicorn.UcError(error)}")


class Devices:
    """Those of one engine. ``accessed`` is told of each access to memory before the device is; ``abandon`` ends the run
    that a callback has failed in."""

    def __init__(self, handle: Any, accessed: Accessed, abandon: Callable[[], None]) -> None:
        self._handle = handle
        self._accessed = accessed
        self._abandon = abandon
        self._callbacks: list[Any] = []
        self._ports: list[tuple[int, int, ReadCallback, WriteCallback]] = []
        self._error: BaseException | None = None
        self.memory: list[tuple[int, int]] = []
        """(physical address, bytes) of each device"""

    def take_error(self) -> BaseException | None:
        """What a callback has raised since this was asked last."""
        error, self._error = self._error, None
        return error

    def map_memory(self, base: int, size: int, read: ReadCallback, write: WriteCallback) -> None:
        callbacks = self.callbacks(base, read, write)
        self.memory.append((base, size))
        self.show(base, size, callbacks)

    def show(self, base: int, size: int, callbacks: tuple[Any, Any]) -> None:
        on_read, on_write = callbacks
        check(
            _lib.uc_mmio_map(self._handle, ctypes.c_uint64(base), ctypes.c_uint64(size), on_read, None, on_write, None),
            f"device at {base:#x}",
        )

    def callbacks(self, base: int, read: ReadCallback, write: WriteCallback) -> tuple[Any, Any]:
        """For Unicorn, of a device at that physical address."""

        def read_at(_uc: object, offset: int, n: int, _data: object) -> int:
            self._accessed(base + offset, n, False)
            return read(offset, n)

        def write_at(_uc: object, offset: int, n: int, value: int, _data: object) -> None:
            self._accessed(base + offset, n, True)
            write(offset, n, value)

        on_read, on_write = _MMIO_READ(self._guarded(read_at)), _MMIO_WRITE(self._guarded(write_at))
        self._callbacks += [on_read, on_write]
        return on_read, on_write

    def map_ports(
        self, instructions: tuple[int, int], first: int, count: int, read: ReadCallback, write: WriteCallback
    ) -> None:
        """``instructions``: see ``Family.ports``. One pair of hooks serves every device."""
        if not self._ports:
            on_in = _PORT_IN(self._guarded(self._port_read))
            on_out = _PORT_OUT(self._guarded(self._port_write))
            self._callbacks += [on_in, on_out]
            for callback, instruction in zip((on_in, on_out), instructions, strict=True):
                handle = ctypes.c_size_t()
                check(
                    _lib.uc_hook_add(
                        self._handle,
                        ctypes.byref(handle),
                        ctypes.c_int(const.UC_HOOK_INSN),
                        ctypes.cast(callback, ctypes.c_void_p),
                        None,
                        ctypes.c_uint64(1),
                        ctypes.c_uint64(0),
                        ctypes.c_int(instruction),
                    ),
                    "port hook",
                )
        self._ports.append((first, count, read, write))

    def _port_read(self, _uc: object, port: int, size: int, _data: object) -> int:
        for first, count, read, _ in self._ports:
            if first <= port < first + count:
                return read(port - first, size)
        return (1 << 8 * size) - 1

    def _port_write(self, _uc: object, port: int, size: int, value: int, _data: object) -> None:
        for first, count, _, write in self._ports:
            if first <= port < first + count:
                write(port - first, size, value)

    def _guarded(self, callback: Callable[..., int | None]) -> Callable[..., int]:
        """An exception must not unwind through the emulator: it ends the run, and ``take_error`` has it."""

        def guarded(*args: Any) -> int:
            if self._error is not None:
                return 0
            try:
                return callback(*args) or 0
            except BaseException as e:
                self._error = e
                self._abandon()
                return 0

        return guarded
