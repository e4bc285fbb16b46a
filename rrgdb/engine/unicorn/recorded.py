"""An engine of Unicorn as a script sees it, once everything that the script does to it is written down.

``record`` gives a ``Uc`` another class: the same interface, which tells a ``Scribe`` what came in.
"""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

import unicorn
from unicorn import unicorn_const as const

from rrgdb.engine.base import EngineError
from rrgdb.engine.unicorn.scripted import REFUSED_HOOKS

_CONTROLS = {
    "ctl_exits_enabled": "exits are rrgdb's own: emu_start(until=…) works as ever",
    "ctl_set_exits": "exits are rrgdb's own: emu_start(until=…) works as ever",
    "ctl_set_tlb_mode": "the script would answer for address translation",
    "ctl_tlb_mode": "the script would answer for address translation",
    "ctl_set_cpu_model": "choose the CPU before rrgdb.attach",
    "ctl_set_page_size": "choose the page size before rrgdb.attach",
    "mem_map_ptr": "what is written there from outside cannot be recorded; use mem_map and mem_write",
}
_QUIET_CONTROLS = {
    const.UC_CTL_UC_MODE,
    const.UC_CTL_UC_PAGE_SIZE,
    const.UC_CTL_UC_ARCH,
    const.UC_CTL_UC_TIMEOUT,
    const.UC_CTL_CPU_MODEL,
    const.UC_CTL_TB_REQUEST_CACHE,
    const.UC_CTL_TB_REMOVE_CACHE,
    const.UC_CTL_TB_FLUSH,
    const.UC_CTL_TLB_FLUSH,
    const.UC_CTL_TCG_BUFFER_SIZE,
}


class Scribe(Protocol):
    """What a script does. Methods perform it and write it down; they raise what ``unicorn.Uc`` would."""

    def check(self, what: str) -> None:
        """EngineError where nothing can be done to the machine now."""

    def wrote_register(self, number: int, value: bytes) -> None: ...
    def write_memory(self, address: int, data: bytes) -> None: ...
    def map(self, address: int, size: int, perms: int) -> None: ...
    def unmap(self, address: int, size: int) -> None: ...
    def protect(self, address: int, size: int, perms: int) -> None: ...
    def map_device(self, address: int, size: int, read: Any, read_data: Any, write: Any, write_data: Any) -> None: ...
    def add_hook(self, kind: int, callback: Any, data: Any, begin: int, end: int, aux1: int, aux2: int) -> int: ...
    def delete_hook(self, handle: int) -> None: ...
    def context_restored(self) -> None: ...
    def run(self, begin: int, until: int, timeout: int, count: int) -> None: ...
    def stop(self) -> None: ...


def fresh(uc: Any) -> None:
    """EngineError unless nothing was hooked or mapped to devices on this engine, and it is no recorded one."""
    if isinstance(uc, _Recorded):
        raise EngineError("rrgdb.attach: this Uc is attached already")
    if not isinstance(uc, unicorn.Uc):
        raise EngineError(f"rrgdb.attach: expected a unicorn.Uc, got {type(uc).__name__}")
    if uc._callbacks or uc._mmio_callbacks:
        raise EngineError("rrgdb.attach: expected a Uc without hooks: attach before hook_add and mmio_map")


def record(uc: Any, scribe: Scribe) -> None:
    """From now on ``uc`` tells ``scribe``."""
    base = type(uc)
    uc._scribe = scribe
    uc.__class__ = type(base.__name__, (_Recorded, base), {"__module__": base.__module__})


def release(uc: Any) -> None:
    """``uc`` is a plain ``unicorn.Uc`` again."""
    uc.__class__ = type(uc).__mro__[2]
    del uc._scribe


class _Recorded:
    """Mixed into the class of a ``unicorn.Uc``; the signatures are Unicorn's."""

    _scribe: Scribe

    def emu_start(self, begin: int, until: int, timeout: int = 0, count: int = 0) -> None:
        self._scribe.run(begin, until, timeout, count)

    def emu_stop(self) -> None:
        self._scribe.stop()

    def _do_reg_write(self, reg_id: int, reg_obj: Any) -> int:
        self._scribe.check("reg_write")
        status = int(super()._do_reg_write(reg_id, reg_obj))  # type: ignore[misc]
        if status == const.UC_ERR_OK:
            self._scribe.wrote_register(reg_id, bytes(reg_obj._obj))
        return status

    def _reg_write_batch(self, write_seq: Any) -> None:
        for register, kind, value in write_seq:
            self._reg_write(register, kind, value)  # type: ignore[attr-defined]

    def mem_write(self, address: int, data: bytes) -> None:
        self._scribe.check("mem_write")
        self._scribe.write_memory(address, bytes(data))

    def mem_map(self, address: int, size: int, perms: int = const.UC_PROT_ALL) -> None:
        self._scribe.check("mem_map")
        self._scribe.map(address, size, perms)

    def mem_unmap(self, address: int, size: int) -> None:
        self._scribe.check("mem_unmap")
        self._scribe.unmap(address, size)

    def mem_protect(self, address: int, size: int, perms: int = const.UC_PROT_ALL) -> None:
        self._scribe.check("mem_protect")
        self._scribe.protect(address, size, perms)

    def mmio_map(self, address: int, size: int, read_cb: Any, read_ud: Any, write_cb: Any, write_ud: Any) -> None:
        self._scribe.check("mmio_map")
        self._scribe.map_device(address, size, read_cb, read_ud, write_cb, write_ud)

    def hook_add(
        self,
        htype: int,
        callback: Any,
        user_data: Any = None,
        begin: int = 1,
        end: int = 0,
        aux1: int = 0,
        aux2: int = 0,
    ) -> int:
        self._scribe.check("hook_add")
        if htype & REFUSED_HOOKS:
            raise EngineError(f"hook_add: what a hook of type {htype:#x} does cannot be recorded")
        return self._scribe.add_hook(htype, callback, user_data, begin, end, aux1, aux2)

    def hook_del(self, handle: int) -> None:
        self._scribe.check("hook_del")
        self._scribe.delete_hook(handle)

    def context_restore(self, context: Any) -> None:
        self._scribe.check("context_restore")
        super().context_restore(context)  # type: ignore[misc]
        self._scribe.context_restored()

    def ctl(self, ctl: int, op: int, *args: Any) -> Any:
        if ctl not in _QUIET_CONTROLS and not (op == const.UC_CTL_IO_READ):
            raise EngineError(f"ctl: what control {ctl} does cannot be recorded")
        return super().ctl(ctl, op, *args)  # type: ignore[misc]


def _refuse(name: str, why: str) -> Any:
    def refused(self: Any, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise EngineError(f"{name}: not while rrgdb records: {why}")

    return refused


for _name, _why in _CONTROLS.items():
    setattr(_Recorded, _name, _refuse(_name, _why))
