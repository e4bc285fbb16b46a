"""The engine on Unicorn.

Slow gear: every instruction is counted natively, so every stop is exact; this is the specification. Fast gear: whole
blocks are counted where nothing can happen inside them, and the slow one does the rest (see ``_fast.h``); both agree
icount by icount.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import unicorn
from unicorn import unicorn_const as const
from unicorn.unicorn_py3 import unicorn as binding

from rrgdb.agent.bytecode import native_table
from rrgdb.arch.base import Arch, CpuException, ExceptionKind, Protection, Trap
from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine.base import (
    NO_STOPS,
    REGIME,
    Collected,
    Counts,
    EngineError,
    Exit,
    ExitKind,
    Footprint,
    ReadCallback,
    Space,
    Stops,
    Underlying,
    Watch,
    WriteCallback,
    ranges,
)
from rrgdb.engine.memory import PAGE, Ram
from rrgdb.engine.paging import Mapped
from rrgdb.engine.unicorn import _hot, counting
from rrgdb.engine.unicorn.build import build_id
from rrgdb.engine.unicorn.devices import Devices
from rrgdb.engine.unicorn.families import FAMILIES
from rrgdb.engine.unicorn.families.base import Sync, find_layout
from rrgdb.engine.unicorn.kept import KeptRegisters
from rrgdb.engine.unicorn.probes.layout import Context
from rrgdb.engine.unicorn.probes.structure import mapping_at, no_sync
from rrgdb.engine.unicorn.registers import RegisterFile
from rrgdb.engine.unicorn.rom import MappedRom
from rrgdb.engine.unicorn.watches import Watches
from rrgdb.engine.unicorn.ways import Ways

_lib = binding.uclib
_hot.set_agent_operations(native_table())

_STATE = struct.Struct("<QQ")
TRANSLATED_BYTES = 128 << 20
"""room for translated code; Unicorn's own choice is a GiB"""

_EXITS = {
    _hot.LIMIT: Exit(ExitKind.LIMIT),
    _hot.BREAKPOINT: Exit(ExitKind.BREAKPOINT),
    _hot.RANGE: Exit(ExitKind.RANGE),
    _hot.INTERRUPT: Exit(ExitKind.INTERRUPT),
    _hot.UNMASKED: Exit(ExitKind.UNMASKED),
}
_HALTED = Exit(ExitKind.HALT)
_NEVER = (1 << 64) - 1
"""no position, in the native half"""
_CLASSES = {Trap.MMU: _hot.CLASS_MMU, Trap.STATUS: _hot.CLASS_STATUS}
_TLB_FLUSH_CONTROL = const.UC_CTL_TLB_FLUSH | const.UC_CTL_IO_WRITE << 30


def _address(function: str) -> int:
    return ctypes.cast(getattr(_lib, function), ctypes.c_void_p).value or 0


class UnicornEngine:
    """One CPU. See ``rrgdb.engine.base.Engine`` for the contract."""

    def __init__(self, arch: Arch, ram: Ram, model: str | None = None, *, fast: bool = True, uc: Any = None) -> None:
        """``fast``: use the fast gear where this family has one. ``uc``: an engine of Unicorn that somebody else has
        made and handles the exceptions of. EngineError for a CPU model that the family does not have."""
        self.arch = arch
        self.family = family = FAMILIES[arch.name]
        self.ram = ram
        self.build = build_id()
        self._uc = self._new_cpu(model) if uc is None else uc
        self._uc.ctl_exits_enabled(True)
        self._bare = bare = uc is not None
        inlines = fast and counting.inlines()
        if fast and not bare:
            if family.page_size is not None:
                self._uc.ctl_set_page_size(family.page_size)
            self._uc.ctl_set_tcg_buffer_size(TRANSLATED_BYTES)
            self._uc.ctl_set_tlb_mode(const.UC_TLB_VIRTUAL)
        places = dict(family.places(self._uc, bare))
        self._uc.reg_read(family.number(arch.pc))  # now the engine structure is complete
        mapping = mapping_at(self._uc, family.arch, arch.name) if inlines or (fast and bare) else 0
        if bare and not mapping:
            fast = inlines = False
        self._fast = fast
        self._handle = self._uc._uch
        self._inlines = inlines
        keeps = family.sync is Sync.ALWAYS or (family.sync is Sync.FAST and fast and not bare)
        self._code_pages = bytearray(ram.pages)
        self._core = _hot.Core(
            uc=self._handle.value,
            functions={name: _address(name) for name in _hot.FUNCTIONS},
            family=family.native,
            wide=arch.bits == 64,
            big_endian=arch.byteorder == "big",
            places=places,
            filters=(family.filters, family.second_filters),
            code_pages=self._code_pages,
            ram=ram.address,
            fast=fast,
            pc=family.number(arch.pc),
            stale_pc=family.stale_pc,
            bare=bare,
            no_sync=self._handle.value + no_sync() if keeps else 0,
            inlines=inlines,
            mapping=mapping,
        )
        self._traps: dict[tuple[bytes, bool], Trap | None] = {}
        self._roms: list[MappedRom] = []
        self._devices = Devices(self._handle, self._device_accessed, lambda: self._core.lower_limit(0))
        self._mask = (1 << arch.bits) - 1
        self._has_translated = False
        self._footprint_begin = 0
        self._stops = NO_STOPS
        layout = find_layout(family)
        self.unknown = layout.missing
        """what this build of Unicorn hides: such details of exceptions are guessed"""
        self._context = Context(self._uc, layout)
        if family.found is not None:
            family.found(self._core, self._context, layout)
        self._banked = layout.banked
        self._registers = RegisterFile(
            _lib,
            self._handle,
            arch,
            family.registers,
            family.quirks,
            self._core.read_registers,
            self._core.read_word,
            self._core.write_word,
            self._context.save,
            self._context.restore,
            layout.hidden,
            places.get("privilege"),
        )
        self._core.set_registers([(*r, -1) for r in self._registers.in_hooks()])
        if fast and not bare and family.entry:
            entry = tuple(self._registers.word(name) for name in family.entry)
            self._core.set_entry(self._context.address, layout.fault_address, layout.syndrome, entry)
        self._faults = family.faults(
            arch,
            family.kinds,
            family.stale_pc,
            layout,
            self._core,
            self._registers,
            self._context,
            self.read_memory_quietly,
        )
        self._kept = KeptRegisters(arch.kept_registers, {} if arch.interrupts is None else arch.interrupts.registers)
        at, self._computed = 0, list[tuple[str, int, int]]()
        for r in arch.registers:
            size = r.bits + 7 >> 3
            if r.name in arch.computed:
                self._computed.append((r.name, at, size))
            at += size
        self._protection_table = None if bare or family.protection is None else family.protection(layout)
        self._protections: tuple[Protection, ...] = ()
        self._protected = self._kept.values
        """what ``_protections`` follow from"""
        self._ruled: Mapping[str, int] | None = None
        """what the rules follow from that the hooks have"""
        self._core.learns = family.regime is not None and not bare
        self._ways = Ways(family, arch.bits, arch.byteorder, self._registers, ram)
        self._watches = Watches(
            self._core, self._ways, ram, self._devices, self.translate, arch.bits, guards=fast and not bare
        )
        self._core.set_regime(self._ways.selected(dict(family.regime_registers)))
        self._controls = {name: mask for name, mask in family.translation.items() if mask}
        self._core.set_controls([(*self._registers.selector(name), mask) for name, mask in self._controls.items()])
        self._awaiting = self._masks_known = self._places_known = False
        self._pc = self._core.address()

    def _new_cpu(self, model: str | None) -> Any:
        arch, models = self.arch, self.family.models
        name = model or arch.models[0]
        if name not in models:
            raise EngineError(f"--cpu {name}: {arch.name} has {', '.join(arch.models)}")
        uc = unicorn.Uc(self.family.arch, self.family.mode)
        uc.ctl_set_cpu_model(models[name])
        return uc

    # -- running ---------------------------------------------------------------------------------

    @property
    def icount(self) -> int:
        return self._core.icount

    def run_until(self, icount: int) -> Exit:
        core = self._core
        edge: range | None = None
        for rom in self._roms:
            rom.settle()
        if self.arch.rules is not None and self._ruled is not self._kept.values:
            self._ruled = self._kept.values
            core.set_rules(*self.arch.rules(self))
        while True:
            reason = core.run(self._pc, icount)
            icount = core.user_limit  # a device may have lowered it
            self._has_translated |= bool(core.mmu_seen)
            exits = edge
            if edge is not None:
                self._set_exits(None)
                edge = None
            error = self._devices.take_error()
            if error is not None:
                self._pc = self._core.address()
                raise error
            if reason == _hot.LOST:
                raise EngineError(f"no instruction of the running block begins at {core.pc:#x}")
            if reason in (_hot.EXCEPTION, _hot.ERROR):
                exception, retired = self._faults.read()
                self._set_pc(exception.pc)
                mapped = self._map_fetched(exception)
                edge = self._edge(exception, exits) if retired and not mapped else None
                if edge is not None:
                    self._set_exits(edge)
                    continue
                reason = self._arrive(exception.pc) if retired else _hot.NONE
                if reason == _hot.NONE:
                    if mapped:
                        continue
                    return Exit(ExitKind.EXCEPTION, exception=exception)
            elif reason == _hot.NONE:
                self._pc = self._core.address()
                if exits is None or self._pc not in exits:
                    return _HALTED
                reason = self._arrive(self._pc)
                if reason == _hot.NONE:
                    continue
            self._pc = core.pc
            if reason == _hot.FIND:
                self._watches.find()
                continue
            if reason == _hot.LEARN:
                self._look_up(core.asked_page)
                continue
            if reason == _hot.CLASSIFY:
                self._classify(core.trapped_code(), bool(core.code_thumb))
                continue
            if reason == _hot.TRAP:
                code = core.trapped_code()
                return Exit(ExitKind.TRAP, trap=self._traps[code, bool(core.code_thumb)], code=code)
            if reason == _hot.SYSCALL:
                return Exit(ExitKind.EXCEPTION, exception=self._faults.system_call(core.pc, core.trapped_code()))
            if reason == _hot.DEBUG:
                return Exit(ExitKind.EXCEPTION, exception=self._faults.own_breakpoint(core.pc))
            if reason == _hot.WATCHPOINT:
                return Exit(ExitKind.WATCHPOINT, hits=self._watches.take_hits())
            if reason in (_hot.DENIED, _hot.ILLEGAL, _hot.DIVISION):
                return Exit(ExitKind.EXCEPTION, exception=self._faults.refused(core.pc, core.last_size, reason))
            return _EXITS[reason]

    def _arrive(self, pc: int) -> int:
        while (reason := int(self._core.arrive(pc))) in (_hot.FIND, _hot.LEARN):
            if reason == _hot.FIND:
                self._watches.find()
            else:
                self._look_up(self._core.asked_page)
        return reason

    def _map_fetched(self, exception: CpuException) -> bool:
        """Whether the exception was that memory which the guest executes was not mapped yet; now it is."""
        if exception.kind is not ExceptionKind.FETCH_FAULT or all(rom.mapped for rom in self._roms):
            return False
        try:
            address = self.translate(exception.address)
        except MemoryFault:
            return False
        return any(rom.fetched(address) for rom in self._roms)

    def _edge(self, exception: CpuException, tried: range | None) -> range | None:
        """Where blocks must end so that what stands before a missing page runs.

        A block that reaches into such a page fails as a whole, although its first instructions are there. So it
        is cut before each instruction that may reach over, until the one that does stands alone.
        """
        missing = exception.address & -PAGE
        if exception.kind is not ExceptionKind.FETCH_FAULT or not 0 < missing - exception.pc <= PAGE:
            return None
        if tried is not None and tried.start == exception.pc + 1:
            return None
        first = missing - self.arch.max_instruction_length + 1
        return range(exception.pc + 1, missing + 1) if exception.pc >= first else range(first, missing + 1)

    def _set_exits(self, exits: range | None) -> None:
        self._uc.ctl_set_exits(list(exits or ()))
        self._uc.ctl_flush_tb()

    def _translating(self) -> bool:
        """Whether the guest translates addresses now; while it does not, RAM is flat."""
        return any(self._registers.read(name) & mask for name, mask in self._controls.items())

    def _protect(self, *, loaded: bool = False) -> None:
        """Enforce what the kept registers say of physical memory, if that has changed or the context was ``loaded``."""
        if self.arch.protections is None or self._protection_table is None:
            return
        entries = self._protections if self._kept.values is self._protected else self.arch.protections(self)
        self._protected = self._kept.values
        if entries != self._protections or (loaded and entries):
            self._protections = entries
            ranges = ((e.first, e.last) if e.first <= e.last else (1, 0) for e in entries)
            self._core.set_pmp([(*r, e.permissions, e.locked) for r, e in zip(ranges, entries, strict=True)])
            self._context.restore(self._protection_table.write(self._context.save(), entries))

    def _trap_of(self, code: bytes, second: bool) -> Trap | None:
        """``second``: of the second instruction set."""
        trap = self.arch.second_set.classify(code) if second and self.arch.second_set else self.arch.classify(code)
        self._traps[code, second] = trap
        return trap

    def _classify(self, code: bytes, second: bool) -> None:
        trap = self._trap_of(code, second)
        if trap is None:
            kind = _hot.CLASS_SYSCALL if self._faults.is_system_call(code) else _hot.CLASS_PLAIN
        else:
            kind = _CLASSES.get(trap, _hot.CLASS_TRAP)
        self._core.set_class(code, second, kind)

    def _set_pc(self, pc: int) -> None:
        self._registers.raw_write(self.arch.pc, pc - self._core.code_base & self._mask)
        self._pc = pc

    @property
    def pc(self) -> int:
        """Address of the next instruction: linear, whatever x86's code segment begins with."""
        return self._pc

    def count_one(self) -> None:
        self._core.performed()

    def uncount_one(self) -> None:
        self._core.icount -= 1

    def limit(self, icount: int) -> None:
        self._core.lower_limit(icount)

    def keep_time(self, shift: int, slept: int) -> None:
        self._core.keep_time(shift, slept, self._clock_ahead)

    @property
    def _clock_ahead(self) -> int:
        return self._kept.values.get(self.family.clock_ahead, 0)

    def await_unmasked(self, raised: int) -> None:
        if not raised and not self._awaiting:
            return
        if not self._masks_known and self.family.masks is not None:
            # To look for them takes a millisecond, and many guests take no interrupts.
            self._core.set_masks(self.family.masks(self._uc))
            self._masks_known = True
        self._awaiting = raised != 0
        self._core.await_unmasked(raised)

    def interrupt(self) -> None:
        self._core.request_interrupt()

    def clear_interrupt(self) -> None:
        self._core.clear_interrupt()

    @property
    def interrupted(self) -> bool:
        return bool(self._core.interrupt)

    # -- registers -------------------------------------------------------------------------------

    def read(self, name: str) -> int:
        if name in self._kept.values:
            return self._kept.values[name]
        computed = self.arch.computed.get(name)
        return self._registers.read(name) if computed is None or self._bare else computed.read(self)

    def write(self, name: str, value: int) -> None:
        if name in self._kept.values:
            self._kept.write(name, value)
            if name == self.family.clock_ahead:
                self._core.time_ahead = self._clock_ahead
            elif name in self.arch.kept_registers:
                self._protect()
            return
        if name in self.arch.computed and not self._bare:
            self.arch.computed[name].write(self, value)
            return
        self._registers.write(name, value)
        if name == self.arch.pc or name in self.family.code_base:
            self._pc = self._core.address()
        elif name in self.family.translation:
            self._set_translation()

    def _set_translation(self) -> None:
        """Control registers were written from outside."""
        if self._set_translating(self._translating()):
            self.drop_translations()

    def _set_translating(self, on: bool) -> bool:
        """Whether addresses are or were translated."""
        before = self._core.mmu_seen
        self._core.set_mmu(on)
        self._has_translated |= bool(self._core.mmu_seen)
        return bool(before or self._core.mmu_seen)

    def read_registers(self) -> bytes:
        values = self._registers.read_all()
        if not self._computed or not self._kept.added:
            return values
        out = bytearray(values)
        for name, at, size in self._computed:
            out[at : at + size] = self.read(name).to_bytes(size, self.arch.byteorder)
        return bytes(out)

    def registers_digest(self) -> bytes:
        banked = self._banked
        # Registers of other modes are nowhere but in the context.
        digest = self._registers.digest() + (self._context.save()[banked.start : banked.stop] if banked else b"")
        return digest + self._kept.state if any(self._kept.state) else digest

    # -- memory ----------------------------------------------------------------------------------

    def map_ram(self, base: int, size: int) -> None:
        region = self.ram.add_region(base, size)
        self._uc.mem_map_ptr(base, size, const.UC_PROT_ALL, self.ram.address + region.offset)
        self._core.add_region(base, size, self.ram.address + region.offset)

    def map_rom(self, base: int, size: int, read: ReadCallback, write: WriteCallback) -> MappedRom:
        rom = MappedRom(
            self._handle,
            self.ram,
            self.ram.add_region(base, size),
            self._devices,
            read,
            write,
            self._memory_moved,
            self.pages_changed,
        )
        self._roms.append(rom)
        rom.map()
        return rom

    def _memory_moved(self) -> None:
        """What the guest finds as memory is no longer what it was."""
        stores = {rom.region: rom.store for rom in self._roms}
        hidden = [rom.region for rom in self._roms if not rom.mapped]
        self._core.clear_regions()
        for r in self.ram.regions:
            if r not in hidden:
                self._core.add_region(r.base, r.size, self.ram.address + r.offset, stores.get(r, 0))
        _lib.uc_ctl(self._handle, ctypes.c_int(_TLB_FLUSH_CONTROL))

    def map_mmio(self, base: int, size: int, read: ReadCallback, write: WriteCallback) -> None:
        self._devices.map_memory(base, size, read, write)

    def map_ports(self, first: int, count: int, read: ReadCallback, write: WriteCallback) -> None:
        """EngineError for a family without I/O ports."""
        if self.family.ports is None:
            raise EngineError(f"{self.arch.name} has no I/O ports")
        self._devices.map_ports(self.family.ports, first, count, read, write)

    def _device_accessed(self, physical: int, size: int, store: bool) -> None:
        if self._watches:
            self._core.device_accessed(physical, size, store)

    @property
    def translates(self) -> bool:
        return self._has_translated or bool(self._core.mmu_seen)

    @property
    def may_translate(self) -> bool:
        return bool(self._controls)

    def translate(self, address: int) -> int:
        """Virtual to physical; MemoryFault if nothing is mapped there."""
        if address >> self.arch.bits:
            raise MemoryFault(address)
        if not self._core.mmu_seen:
            return address
        if self.family.paging is not None:
            translation = self._ways.translation()
            found = address if translation is None else translation.find(address, self._ways.read_number)
            if found is None:
                raise MemoryFault(address)
            return found
        physical = ctypes.c_uint64()
        for protection in (const.UC_PROT_READ, const.UC_PROT_EXEC):
            error = _lib.uc_vmem_translate(
                self._handle, ctypes.c_uint64(address), ctypes.c_int(protection), ctypes.byref(physical)
            )
            if not error:
                return physical.value
        raise MemoryFault(address)

    def mappings(self, most: int) -> Iterator[Mapped] | None:
        translation = self._ways.translation()
        return None if translation is None else translation.mappings(self._ways.read_number, most)

    def read_memory(self, address: int, length: int) -> bytes:
        parts: list[bytes] = []
        end = address + length
        while address < end:
            n = min(end - address, PAGE - address % PAGE) if self._core.mmu_seen else end - address
            try:
                part = self.ram.read(self.translate(address), n)
            except MemoryFault:
                if parts:
                    break
                raise MemoryFault(address) from None
            parts.append(part)
            address += len(part)
            if len(part) < n:
                break
        return b"".join(parts)

    def read_memory_quietly(self, address: int, length: int) -> bytes:
        try:
            return self.read_memory(address, length)
        except MemoryFault:
            return b""

    def check_memory(self, address: int, length: int) -> None:
        found = len(self.read_memory(address, length))
        if found < length:
            raise MemoryFault(address + found)

    def write_memory(self, address: int, data: bytes) -> None:
        self.check_memory(address, len(data))
        done = 0
        touched: list[int] = []
        while done < len(data):
            n = min(len(data) - done, PAGE - (address + done) % PAGE) if self._core.mmu_seen else len(data)
            touched += self.ram.write(self.translate(address + done), data[done : done + n])
            done += n
        self.pages_changed(touched)

    def pages_changed(self, pages: Iterable[int]) -> None:
        """RAM pages were changed from outside: translations made from them are dropped."""
        stale = [p for p in pages if self._code_pages[p]]
        if not stale:
            return
        self._core.forget_blocks()
        if self._core.mmu_seen or len(stale) > 64:
            self._uc.ctl_flush_tb()
            return
        for page in stale:
            for r in self.ram.regions:
                if r.offset <= page * PAGE < r.offset + r.size:
                    start = r.base + page * PAGE - r.offset
                    self._uc.ctl_remove_cache(start, start + PAGE)

    def drop_translations(self) -> None:
        self._uc.ctl_flush_tb()
        _lib.uc_ctl(self._handle, ctypes.c_int(_TLB_FLUSH_CONTROL))

    # -- points ----------------------------------------------------------------------------------

    @property
    def stops(self) -> Stops:
        return self._stops

    def arm(self, stops: Stops, ignored_at: int | None = None) -> None:
        """See ``Engine``. Conditions that a hook cannot judge stop as if they held."""
        if stops is not self._stops:
            self._change(self._stops, stops)
        self._core.skip = _NEVER if ignored_at is None else ignored_at

    def _change(self, old: Stops, stops: Stops) -> None:
        core = self._core
        breakpoints, watches = stops.breakpoints != old.breakpoints, stops.watches != old.watches
        if watches:
            self._watches.set(stops.watches)
        if breakpoints:
            if self._inlines and not self._places_known and any(conditions for _, conditions in stops.breakpoints):
                core.set_registers(self._registers.in_code(self.family.arch, self.family.mode))
                self._places_known = True
            core.set_breakpoints(stops.breakpoints)
        if stops.within != old.within:
            core.set_range(*(stops.within or (0, 0)))
        if breakpoints or watches or stops.collect != old.collect:
            core.set_collect(stops.collect)
        self._stops = stops

    def _look_up(self, page: int) -> None:
        """Tell the hooks where a virtual page is. What follows from more than they can look at is the caller's."""
        way = self._ways.find(page)
        self._core.learn(page, self._ways.host(way), self._ways.native(page, way) or ([], []))

    def out_of_reach(self, address: int, length: int) -> bool:
        places = [*((r.base, r.size) for r in self.ram.regions), *self._devices.memory]
        return all(address + length <= base or base + size <= address for base, size in places)

    def underlying(self, watch: Watch) -> Underlying | None:
        reached = not self.out_of_reach(watch.address, watch.length)
        return self._watches.underlying(watch, translated=self.translates, reached=reached)

    def watched(self, watch: Watch) -> bytes:
        if watch.physical:
            return self.ram.read(watch.address, watch.length)
        return self.read_memory_quietly(watch.address, watch.length)

    def space(self) -> Space | None:
        return self._ways.space()

    def shows(self, space: Space, address: int) -> bool:
        return self._watches.shows(space, address)

    @property
    def counts(self) -> Counts:
        core = self._core
        return Counts(core.executed, core.looked, core.inlined, counting.way())

    def collected(self) -> Collected:
        breakpoint, watch = self._core.bp_last, self._core.watch_last
        return Collected(
            None if breakpoint == _NEVER else breakpoint, None if watch == _NEVER else watch, self._watches.take_hits()
        )

    def rearm(self) -> None:
        self._core.rearm()

    # -- footprint -------------------------------------------------------------------------------

    @property
    def footprint_begin(self) -> int:
        return self._footprint_begin

    def take_footprint(self) -> Footprint | None:
        code = self._core.take_code()
        pages = self.ram.take_written().astype(np.uint64)
        if self._core.take_regime():
            pages = np.append(pages, np.uint64(REGIME))
        begin, self._footprint_begin = self._footprint_begin, self.icount
        if code is None:
            return None
        blocks = np.frombuffer(code, dtype="<u8").reshape(-1, 2)
        first = blocks[:, 0]
        last = first + np.minimum(blocks[:, 1] - np.uint64(1), ~first)
        return Footprint(begin, self.icount, ranges(first, last), ranges(pages, pages))

    def forget_footprint(self) -> None:
        self._core.forget_code()
        self.ram.forget_written()
        self._footprint_begin = self.icount

    # -- state -----------------------------------------------------------------------------------

    def save(self) -> bytes:
        return _STATE.pack(self.icount, self._core.mmu_seen) + self._context.save() + self._kept.state

    def reset(self, state: bytes) -> None:
        icount = self.icount
        self.load(state, own=True)
        self._core.icount = self._footprint_begin = icount

    def load(self, state: bytes, *, own: bool = False) -> None:
        """See ``Engine``. The caller has put RAM in place and called ``pages_changed``."""
        icount, translates, context, kept = self._parse(state)
        if own:
            self._context.put_back(context)
        else:
            self._restore_context(context)
        if kept is not self._kept.values:
            self._kept.take(kept)
        self._core.icount = icount
        if self._set_translating(translates if own and not self._bare else self._translating()):
            _lib.uc_ctl(self._handle, ctypes.c_int(_TLB_FLUSH_CONTROL))
        self._protect(loaded=True)
        self.forget_footprint()
        if self._bare:
            if self.family.refresh is not None:
                self.family.refresh(self._registers, self._context)
        elif not own:
            self._empty_computed()
        self._pc = self._core.address()
        if self._watches and self._core.mmu_seen:
            self._watches.find()
        self.rearm()

    def _empty_computed(self) -> None:
        """In states of behaviour 2 Unicorn kept what is computed now."""
        for name, _, _ in self._computed:
            if self._registers.read(name):
                self._registers.write(name, 0)

    def _parse(self, state: bytes) -> tuple[int, bool, bytes, Mapping[str, int]]:
        """(icount, whether addresses are translated, context, kept registers) out of a saved state."""
        end = _STATE.size + self._context.size
        if len(state) < end or not self._kept.fits(len(state) - end):
            raise EngineError(f"a CPU state of {len(state)} bytes does not fit this Unicorn ({build_id()})")
        icount, translates = _STATE.unpack_from(state)
        context, table = state[_STATE.size : end], self._protection_table
        kept = self._kept.unpack(state[end:], lambda: {} if table is None else table.registers(context))
        return icount, bool(translates), context, kept

    def _restore_context(self, state: bytes) -> None:
        """EngineError, ValueError if no CPU like this one can be in that state: Unicorn would look things up out of
        bounds."""
        self._context.restore(state)
        if self.family.check is not None:
            self.family.check(self._registers, self._context)
