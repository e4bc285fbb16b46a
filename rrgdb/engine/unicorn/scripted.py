"""The engine of a guest that a Python script drives through Unicorn's own interface.

The script's hooks and its way of handling exceptions stay as they are: this engine only counts, looks and stops, with
hooks that come before all others. Its RAM is one mapping like that of every guest, wherever the script maps memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any

import unicorn
from unicorn import unicorn_const as const
from unicorn.unicorn_py3 import unicorn as binding

from rrgdb.arch.base import Arch, Trap
from rrgdb.engine.base import EngineError, Exit, ExitKind
from rrgdb.engine.memory import PAGE, Ram, Region
from rrgdb.engine.unicorn import _hot
from rrgdb.engine.unicorn.engine import _EXITS, TRANSLATED_BYTES, UnicornEngine, _lib
from rrgdb.engine.unicorn.families import FAMILIES

UcError = unicorn.UcError
MAX_REGIONS = 256
MOST_HOOKS = 32
"""of a script: with more of them for instructions, each instruction is looked at"""
MAX_DEVICE = 1 << 36
"""bytes of one: Unicorn takes it away page by page"""
_HALTED = Exit(ExitKind.HALT)
_FETCHES = (const.UC_MEM_FETCH, const.UC_MEM_FETCH_UNMAPPED, const.UC_MEM_FETCH_PROT)
_BY_ADDRESS = const.UC_HOOK_CODE | const.UC_HOOK_BLOCK
_VALID = const.UC_HOOK_MEM_VALID | const.UC_HOOK_MEM_READ_AFTER
_ACCESSES = const.UC_HOOK_MEM_INVALID | _VALID
REFUSED_HOOKS = const.UC_HOOK_EDGE_GENERATED | const.UC_HOOK_TCG_OPCODE | const.UC_HOOK_TLB_FILL
_EMULATED = (Trap.COUNTER, Trap.ENTROPY, Trap.COMPUTE)

Bind = Callable[[int, bool], Callable[..., int]]
"""(hook's number, whether it comes before the instruction begins) -> what is called with what Unicorn tells: it
returns what the hook does, and raises nothing. If it comes early, the first argument is whether the hook was called for
the same before the run was stopped"""


def family_of(uc: Any, arches: Iterable[Arch]) -> Arch:
    """The family of an engine of Unicorn. EngineError if rrgdb has none such."""
    for arch in arches:
        family = FAMILIES[arch.name]
        if (family.arch, family.mode) == (uc._arch, uc._mode):
            return arch
    known = ", ".join(sorted(a.name for a in arches))
    raise EngineError(f"Uc(arch {uc._arch}, mode {uc._mode:#x}): rrgdb can record {known}")


def new_uc(arch: Arch, model: int) -> Any:
    """A fresh engine of Unicorn. EngineError for a model that it does not have."""
    family = FAMILIES[arch.name]
    uc: Any = unicorn.Uc(family.arch, family.mode)
    try:
        if model >> 31:
            raise UcError(const.UC_ERR_ARG)
        # It can be chosen once, and to ask for the model chooses it.
        uc.ctl_set_cpu_model(model)
        uc.ctl_set_tcg_buffer_size(TRANSLATED_BYTES)
    except UcError as e:
        raise EngineError(f"CPU model {model} of {arch.name}: {e}") from None
    return uc


def _check_permissions(perms: int) -> None:
    """UcError for what the binding refuses by an assertion."""
    if perms & ~const.UC_PROT_ALL:
        raise UcError(const.UC_ERR_ARG)


def same_handle(uc: Any) -> Any:
    """A plain ``Uc`` on the handle of ``uc``, whatever becomes of that one's class."""
    plain = object.__new__(type(uc))
    plain.__dict__ = uc.__dict__
    return plain


class ScriptEngine(UnicornEngine):
    """One CPU that a script made. ``uc`` is a plain ``unicorn.Uc``. See ``rrgdb.engine.base.Engine``.

    Every attempt at an instruction counts, also one that raised an exception or that a hook stopped: positions tell
    the states before and after it apart.
    """

    def __init__(self, arch: Arch, ram: Ram, uc: Any, *, fast: bool = True) -> None:
        super().__init__(arch, ram, fast=fast, uc=uc)
        self.uc = uc
        self.running = False
        """inside ``run_until``: hooks may be called"""
        self.ended: int | None = None
        """Unicorn's error (0: none) if emulation ended by itself in the last ``run_until``"""
        self.bind: Bind = lambda _number, _early: lambda *_args: 0
        self._stale = False
        self._executing = False
        self._cut_short = False
        self._until: int | None = None
        self._handles: dict[int, int] = {}
        self._hooked: dict[int, tuple[int, int, int]] = {}
        """kind, begin, end of each hook"""
        self._companions: dict[int, list[int]] = {}
        self._hooks_code = self._hooks_moved = self._crowded = False
        self._referenced: list[Any] = []
        self._pc_id = self.family.number(arch.pc)
        ids = (self.family.registers[name] for name in self.family.translation)
        self._translation_ids = frozenset(id_ for id_ in ids if isinstance(id_, int))

    # -- running ---------------------------------------------------------------------------------

    def run_until(self, icount: int) -> Exit:
        """As the protocol says; HALT: emulation ended by itself, see ``ended``."""
        core = self._core
        if self._hooks_moved:
            self._follow_hooks()
        self._settle()
        self.ended = None
        self._cut_short = False
        while True:
            self.running = True
            try:
                reason = core.run(self._pc, icount)
            finally:
                self.running = False
            if reason == _hot.FIND:
                self._pc = core.pc
                self._watches.find()
                continue
            if reason == _hot.LOST:
                raise EngineError(f"no instruction of the running block begins at {core.pc:#x}")
            if reason == _hot.CLASSIFY:
                self._pc = core.pc
                self._classify(core.trapped_code(), bool(core.code_thumb))
                continue
            if reason in (_hot.NONE, _hot.ERROR, _hot.EXCEPTION):
                self.ended = int(core.error) if reason == _hot.ERROR else 0
                self._pc = self._core.address()
                if self._cut_short and not self.ended and self._fast and not self._hooks_code:
                    core.count_stopped()
                if (self.ended or self._cut_short) and self._pc == core.last_pc:
                    self._faults.undone()
                reason = self._arrive(self._pc)
                if reason not in (_hot.LIMIT, _hot.WATCHPOINT, _hot.INTERRUPT):
                    return _HALTED
            else:
                self._pc = core.pc
            if reason == _hot.TRAP:
                code = core.trapped_code()
                return Exit(ExitKind.TRAP, trap=self._traps[code, bool(core.code_thumb)], code=code)
            if reason == _hot.WATCHPOINT:
                return Exit(ExitKind.WATCHPOINT, hits=self._watches.take_hits())
            return _EXITS[reason]

    def _classify(self, code: bytes, second: bool) -> None:
        """Only what would show the guest something of the host is kept from running natively."""
        trap = self._trap_of(code, second)
        kind = _hot.CLASS_TRAP if trap in _EMULATED else _hot.CLASS_MMU if trap is Trap.MMU else _hot.CLASS_PLAIN
        self._core.set_class(code, second, kind)

    def begin(self, pc: int, until: int) -> None:
        """A run begins at ``pc`` and ends where pc is ``until``."""
        self.set_until(until)
        # As Unicorn does: on Arm bit 0 chooses the instruction set.
        self.uc.reg_write(self._pc_id, pc)
        self._pc = self._core.address()

    def set_until(self, until: int) -> None:
        if until != self._until:
            self._until = until
            self._set_exits(range(until, until + 1))

    def stop(self) -> None:
        """From within a hook: as Unicorn's ``emu_stop``."""
        if self.running:
            self._cut_short |= self._executing
            self._core.leave()
            _lib.uc_emu_stop(self._handle)

    def _changed(self) -> None:
        """Translations are out of date: dropped now, or before the next instruction if one is executing."""
        self._stale = True
        if self.running:
            self._core.request_interrupt()
        else:
            self._settle()

    def _settle(self) -> None:
        if self._stale:
            self._stale = False
            self._core.forget_blocks()
            self.drop_translations()

    # -- state -----------------------------------------------------------------------------------

    def wrote_register(self, number: int) -> None:
        """A register was written through Unicorn."""
        if number in self._translation_ids:
            self._translation_written()
        if not self.running:
            self._pc = self._core.address()

    def _translation_written(self) -> None:
        translating = self._translating()
        self._has_translated |= translating
        if self._core.mmu_seen or translating:
            self._core.mmu_seen = translating
            self._core.tlb_stale = 1
            self._changed()

    def write_raw(self, number: int, value: bytes) -> None:
        """Write a register by Unicorn's id, as ``uc_reg_write`` takes it. EngineError if it does not."""
        buffer = ctypes.create_string_buffer(value, max(len(value), 64))
        if self.uc._do_reg_write(number, buffer):
            raise EngineError(f"register {number} cannot be written")
        self.wrote_register(number)

    def save_context(self) -> bytes:
        return self._context.save()

    def restore_context(self, state: bytes) -> None:
        """ValueError, EngineError if the state is not of this build."""
        self._restore_context(state)
        self.context_restored()

    def context_restored(self) -> None:
        if self.family.refresh is not None:
            self.family.refresh(self._registers, self._context)
        self._translation_written()
        if not self.running:
            self._pc = self._core.address()

    # -- memory ----------------------------------------------------------------------------------

    def wrote_memory(self, address: int, length: int) -> None:
        """Physical memory was written from outside."""
        pages: set[int] = set()
        end = address + length
        for r in self.ram.regions:
            low, high = max(address, r.base), min(end, r.base + r.size)
            if low < high:
                pages.update(range((low - r.base + r.offset) // PAGE, (high - 1 - r.base + r.offset) // PAGE + 1))
        if any(self._code_pages[p] for p in pages):
            self._changed()

    def watches(self, address: int, length: int) -> bool:
        """Whether any of these bytes is watched."""
        return self._watches.touch(address, length)

    def write_physical(self, address: int, data: bytes) -> None:
        self.ram.write(address, data)
        self.wrote_memory(address, len(data))

    def place(self, size: int) -> int:
        """Offset of a free piece of the mapping. EngineError if there is none."""
        at = 0
        for r in sorted(self.ram.regions, key=lambda r: r.offset):
            if r.offset - at >= size:
                break
            at = max(at, r.offset + r.size)
        if at + size > self.ram.size:
            raise EngineError(
                f"mem_map: {size} bytes more than the {self.ram.size} that rrgdb keeps: rrgdb.attach(uc, memory=…)"
            )
        return at

    def map(self, base: int, size: int, perms: int, offset: int, *, zero: bool = True) -> None:
        """Map a piece of RAM. UcError if Unicorn refuses, EngineError if it is one piece too many, or none of RAM."""
        if offset + size > self.ram.size:
            raise EngineError(f"mem_map: {size} bytes at offset {offset} of {self.ram.size} bytes of RAM")
        if len(self.ram.regions) >= MAX_REGIONS - 1:
            raise EngineError(f"mem_map: more than {MAX_REGIONS - 1} pieces of memory")
        _check_permissions(perms)
        self.uc.mem_map_ptr(base, size, perms, self.ram.address + offset)
        if zero:
            first, last = offset // PAGE, (offset + size) // PAGE
            self.ram.zero(n for n in self.ram.populated().tolist() if first <= n < last)
        self.set_regions([*self.ram.regions, Region(base, size, offset)])

    def set_regions(self, regions: Iterable[Region]) -> None:
        self.ram.regions[:] = sorted(regions, key=lambda r: r.base)
        self._core.clear_regions()
        for r in self.ram.regions:
            self._core.add_region(r.base, r.size, self.ram.address + r.offset)
        self._changed()

    def out_of_reach(self, address: int, length: int) -> bool:
        return False  # the script may have mapped it at another time

    # -- hooks -----------------------------------------------------------------------------------

    def add_hook(self, number: int, kind: int, begin: int, end: int, aux1: int, aux2: int) -> None:
        """A hook that calls what ``bind`` gives. UcError if Unicorn refuses, EngineError if the number has one."""
        if number in self._handles:
            raise EngineError(f"hook_add: there is a hook {number} already")
        companions = self._accompany(kind, begin, end) if self._fast else []
        try:
            called = self._function(number, kind)
            if kind and not kind & ~_BY_ADDRESS:
                handle = self._add_directly(kind, called, begin, end)
            else:
                handle = self.uc.hook_add(kind, called, None, begin, end, aux1, aux2)
        except BaseException:
            self._dismiss(companions)
            raise
        self._handles[number] = handle
        self._companions[number] = companions
        self._hooked[number] = (kind, begin, end)
        self._hooks_moved = True
        self._changed()

    def _accompany(self, kind: int, begin: int, end: int) -> list[int]:
        """Handles of the companions of the hook that is added next."""
        if kind & const.UC_HOOK_CODE and not self._crowded and len(self._hooked) >= MOST_HOOKS:
            # One for all that come behind it.
            self._crowded = True
            self._core.accompany(const.UC_HOOK_CODE, 1, 0)
        return self._core.accompany(kind & ~const.UC_HOOK_CODE if self._crowded else kind, begin, end)

    def _function(self, number: int, kind: int) -> Callable[..., Any]:
        """What Unicorn calls."""
        core, within, early = self._core, self.bind(number, False), self.bind(number, True)
        if kind & const.UC_HOOK_BLOCK:

            def block(_uc: Any, address: int, size: int, _data: Any) -> None:
                early(core.again and core.run_icount == core.icount, address, size)

            return block
        if kind & const.UC_HOOK_CODE:

            def code(_uc: Any, address: int, size: int, _data: Any) -> None:
                within(address, size)

            return code
        if kind & _ACCESSES:

            def access(_uc: Any, type_: int, address: int, size: int, value: int, _data: Any) -> int:
                if core.whole and core.refuses(type_):
                    return 0
                if type_ in _FETCHES:
                    return early(core.run_icount == core.icount, type_, address, size, value)
                self._executing = True
                result = within(type_, address, size, value)
                self._executing = False
                return result

            return access
        executing = bool(kind & const.UC_HOOK_INSN)

        def other(_uc: Any, *args: Any) -> int:
            self._executing = executing
            result = within(*args[:-1])
            self._executing = False
            return result

        return other

    def _add_directly(self, kind: int, called: Callable[..., Any], begin: int, end: int) -> int:
        """A hook by address, without the layers of the Python module: its callback raises nothing."""
        function, handle = binding.HOOK_CODE_CFUNC(called), ctypes.c_size_t()
        error = _lib.uc_hook_add(
            self._handle,
            ctypes.byref(handle),
            ctypes.c_int(kind),
            ctypes.cast(function, ctypes.c_void_p),
            None,
            ctypes.c_uint64(begin),
            ctypes.c_uint64(end),
        )
        if error:
            raise UcError(error)
        self.uc._callbacks[handle.value] = function
        return handle.value

    def _dismiss(self, companions: Iterable[int]) -> None:
        for handle in companions:
            self._core.dismiss(handle)

    def _follow_hooks(self) -> None:
        """Which gear the hooks allow, and where."""
        self._hooks_moved = False
        if not self._fast:
            return
        code: list[tuple[int, int]] = []
        memory: list[tuple[int, int]] = []
        slow = self._crowded
        for kind, begin, end in self._hooked.values():
            if kind & _BY_ADDRESS:
                code.append((begin, end))
            if kind & _VALID:
                memory.append((begin, end))
            slow |= begin > end and bool(kind & (_BY_ADDRESS | _VALID))
            slow |= bool(kind & const.UC_HOOK_INSN) and self.family.arch != const.UC_ARCH_X86
        self._hooks_code = any(kind & const.UC_HOOK_CODE for kind, _, _ in self._hooked.values())
        self._core.set_hooked(slow or len(code) > MOST_HOOKS, code, memory)

    def delete_hook(self, number: int) -> None:
        handle = self._handles.pop(number)
        self._dismiss(self._companions.pop(number))
        del self._hooked[number]
        self._hooks_moved = True
        # It may be the one that is being called.
        self._referenced.append(self.uc._callbacks[handle])
        self.uc.hook_del(handle)
        self._changed()

    def map_device(self, base: int, size: int, read: int, write: int) -> None:
        """Memory-mapped callbacks that call what ``bind`` gives for these numbers; 0: none. UcError if Unicorn refuses,
        EngineError if the device is too large."""
        if size > MAX_DEVICE:
            raise EngineError(f"mmio_map: a device of {size} bytes, expected at most {MAX_DEVICE}")
        on_read, on_write = self.bind(read, False), self.bind(write, False)

        def reads(_uc: Any, offset: int, n: int, _data: Any) -> int:
            if self._watches:
                self._device_accessed(base + offset, n, False)
            self._executing = True
            value = on_read(offset, n)
            self._executing = False
            return value

        def writes(_uc: Any, offset: int, n: int, value: int, _data: Any) -> None:
            if self._watches:
                self._device_accessed(base + offset, n, True)
            self._executing = True
            on_write(offset, n, value)
            self._executing = False

        self.uc.mmio_map(base, size, reads if read else None, None, writes if write else None, None)
        self._changed()

    def unmap(self, base: int, size: int) -> None:
        """UcError if Unicorn refuses. The caller sets the regions."""
        kept = self.uc._mmio_callbacks.get((base, base + size))
        if kept is not None:
            self._referenced.append(kept)
        self.uc.mem_unmap(base, size)
        self._changed()

    def protect(self, base: int, size: int, perms: int) -> None:
        _check_permissions(perms)
        self._core.leave()  # Unicorn leaves code that may no longer be executed
        self.uc.mem_protect(base, size, perms)
        self._changed()
