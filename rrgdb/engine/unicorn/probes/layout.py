"""Where this build of Unicorn keeps what its register API does not show.

Nothing is taken from a table of offsets: small programs raise known exceptions on scratch engines, and the saved CPU
context is searched for what they must have left. Done once a process and family.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import unicorn
from unicorn import arm64_const, arm_const, riscv_const, x86_const
from unicorn import unicorn_const as const
from unicorn.unicorn_py3 import unicorn as binding

from rrgdb.engine.unicorn.probes.structure import scratch

HEADER = 40
"""bytes before the CPU's own in a uc_context"""
_lib = binding.uclib
_CODE = 0x10000
_MAX_TAIL = 512
_ENGINES = 3
"""that are compared to tell this process's values from a guest's"""


class Bound(NamedTuple):
    """A number of ``size`` bytes ``at`` a place in the context, which is one of ``values``: Unicorn looks things up by
    it, unchecked."""

    at: int
    size: int
    values: frozenset[int]

    def holds(self, state: bytes) -> bool:
        return int.from_bytes(state[self.at : self.at + self.size], "little") in self.values


@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets into the bytes of a saved CPU context, None where the probe found nothing (or more than one place).

    ``more_bytes`` is how much of the CPU must be saved behind what Unicorn saves by itself, where that ends too early.
    """

    more_bytes: int = 0
    fault_address: int | None = None
    """RISC-V: xtval; Arm: FAR or DFAR"""
    syndrome: int | None = None
    """AArch64: ESR; ARM: the fault status (4 bytes)"""
    error_code: int | None = None
    """x86 (4 bytes)"""
    previous_exception: int | None = None
    """x86 (4 bytes): the exception that a double fault would be decided by; -1: none"""
    flags: int | None = None
    """x86 (8 bytes): the condition flags, where they are all computed"""
    code_segment: int | None = None
    """x86: selector (4 bytes), 4 bytes, base (8 bytes), limit and flags (4 bytes each)"""
    modes: int | None = None
    """x86 (4 bytes): Unicorn's flags of the mode; bit 4 and 15 say that code is 32-bit and 64-bit"""
    hidden: dict[str, tuple[int, int]] = field(default_factory=dict)
    """x86: (place, bytes) of what no register of the interface shows, by the name that arch gives it"""
    banked: range = range(0)
    """ARM: stack pointers, links and saved status of the other modes"""
    hosts: tuple[int, ...] = ()
    """8-byte words that hold addresses of this process or its time: 0 in a fresh engine, and no part of the guest's
    state"""
    objects: tuple[int, ...] = ()
    """8-byte words that hold addresses of what the engine has made, or what it was made as: those of another engine
    would have it write anywhere"""
    lists: int | None = None
    """ARM: where lists of 4-byte words begin that reach to the end, each behind the number of its words: regions of the
    memory protection unit. Unicorn takes their lengths from the bytes that it restores"""
    region: int | None = None
    """ARM (4 bytes, and 4 for the other security state): which of these regions is chosen"""
    bounds: tuple[Bound, ...] = ()
    """what every state keeps to"""
    missing: tuple[str, ...] = ()
    """what the probe should have found and did not"""


class Context:
    """A uc_context with as many bytes as ``layout`` says, whatever the CPU's model; None: as Unicorn makes it.

    The layout's ``hosts`` and ``objects`` read as 0. A state that is restored leaves the objects as they are."""

    def __init__(self, uc: Any, layout: Layout | None = None) -> None:
        self.uc = uc  # kept alive: the handle is only good that long
        self._handle = handle = uc._uch
        layout = layout or Layout()
        self._bounds = layout.bounds
        self._hosts, self._objects = _runs(layout.hosts), _runs(layout.objects)
        native = ctypes.c_void_p()
        self._check(_lib.uc_context_alloc(handle, ctypes.byref(native)))
        self._check(_lib.uc_context_save(handle, native))
        header = ctypes.string_at(native, HEADER)
        _lib.uc_context_free(native)
        self.size = int.from_bytes(header[:8], "little") + layout.more_bytes
        self._buffer = ctypes.create_string_buffer(self.size.to_bytes(8, "little") + header[8:], HEADER + self.size)
        self._counts = () if layout.lists is None else _counts(self.save(), layout.lists)
        if layout.region is not None:
            regions = frozenset(range(max(1, *(count for _, count in self._counts))))
            self._bounds += tuple(Bound(at, 4, regions) for at in (layout.region, layout.region + 4))

    @property
    def address(self) -> int:
        """Of the uc_context, for native code that saves into it and restores from it at once."""
        return ctypes.addressof(self._buffer)

    @staticmethod
    def _check(error: int) -> None:
        if error:
            raise unicorn.UcError(error)

    def save(self) -> bytes:
        self._check(_lib.uc_context_save(self._handle, self._buffer))
        self._forget(self._hosts + self._objects)
        return self._buffer.raw[HEADER:]

    def _forget(self, runs: Iterable[tuple[int, int]]) -> None:
        for at, size in runs:
            ctypes.memset(self.address + HEADER + at, 0, size)

    def restore(self, state: bytes) -> None:
        """ValueError if the bytes cannot be the state of this CPU."""
        if len(state) != self.size:
            raise ValueError(f"CPU context of {len(state)} bytes, expected {self.size}")
        if any(int.from_bytes(state[at : at + 4], "little") != count for at, count in self._counts):
            raise ValueError("CPU context of another number of memory regions")
        for bound in self._bounds:
            if not bound.holds(state):
                raise ValueError(f"CPU context with a value at byte {bound.at} that no CPU has")
        start = self.address + HEADER
        kept: list[tuple[int, bytes]] = []
        if self._objects:
            self._check(_lib.uc_context_save(self._handle, self._buffer))
            kept = [(at, ctypes.string_at(start + at, size)) for at, size in self._objects]
        ctypes.memmove(start, state, self.size)
        self._forget(self._hosts)
        for at, words in kept:
            ctypes.memmove(start + at, words, len(words))
        self._check(_lib.uc_context_restore(self._handle, self._buffer))


def _runs(places: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """(start, bytes) of the runs of 8-byte words at these places."""
    runs: list[tuple[int, int]] = []
    for at in sorted(places):
        if runs and sum(runs[-1]) == at:
            runs[-1] = (runs[-1][0], runs[-1][1] + 8)
        else:
            runs.append((at, 8))
    return tuple(runs)


def _counts(state: bytes, at: int) -> tuple[tuple[int, int], ...]:
    """(place, value) of the number before each list of ``Layout.lists``."""
    found = []
    while at < len(state):
        count = int.from_bytes(state[at : at + 4], "little")
        found.append((at, count))
        at += 4 + 4 * count
    return tuple(found)


class _Probe:
    """A scratch engine that runs one short program up to its exception."""

    def __init__(self, arch: int, mode: int) -> None:
        self.uc = scratch(arch, mode)
        self.uc.mem_map(_CODE, 0x2000)
        self.uc.hook_add(const.UC_HOOK_INTR, lambda uc, _number, _data: uc.emu_stop())
        self.context = Context(self.uc)

    def run(self, code: str, registers: dict[int, int], clear: Iterable[int] = (), count: int = 1) -> bytes:
        """Context behind ``count`` instructions of ``code`` (hex), of which the last may raise an exception, with the
        registers ``clear`` set to 0."""
        program = bytes.fromhex(code)
        self.uc.mem_write(_CODE, program)
        self.uc.ctl_flush_tb()
        for register, value in registers.items():
            self.uc.reg_write(register, value)
        self.uc.emu_start(_CODE, _CODE + 0x800, count=count)
        for register in clear:
            self.uc.reg_write(register, 0)
        return self.context.save()


def _places(state: bytes, value: bytes) -> set[int]:
    return {at for at in range(0, len(state) - len(value) + 1, 4) if state[at : at + len(value)] == value}


def _hosts(arch: int, mode: int, code: str, registers: dict[int, int], count: int = 1) -> tuple[int, ...]:
    """8-byte words that are no guest's: what differs between engines that have done the same is an address in this
    process, or its time. The values themselves say nothing: a guest's may be any."""
    probes = [_Probe(arch, mode) for _ in range(_ENGINES)]  # at the same time, so at different addresses
    return _different([probe.run(code, registers, count=count) for probe in probes])


def _different(states: list[bytes]) -> tuple[int, ...]:
    """8-byte words that are not the same in all states."""
    return tuple(at for at in range(0, len(states[0]) - 7, 8) if len({s[at : at + 8] for s in states}) > 1)


def _words(first: int, shift: int, count: int) -> str:
    """Instruction words (hex) that differ in one field, which counts up from 0."""
    return b"".join(struct.pack("<I", first | n << shift) for n in range(count)).hex()


def _written(context: Context, write: Callable[[int], None], values: Iterable[int], size: int) -> tuple[Bound, ...]:
    """Places of ``size`` bytes that hold each of ``values`` when ``write`` has been called with it."""
    found: set[int] | None = None
    for value in values:
        write(value)
        state, wanted = context.save(), value.to_bytes(size, "little")
        here = {at for at in range(0, len(state) - size + 1, size) if state[at : at + size] == wanted}
        found = here if found is None else found & here
    return tuple(Bound(at, size, frozenset(values)) for at in sorted(found or ()))


_ROUNDINGS = frozenset(range(6))
"""softfloat's numbers of rounding modes, also of those that only some instructions use"""


def _rounding(context: Context, write: Callable[[int], None]) -> tuple[Bound, ...]:
    """Places of rounding modes; ``write`` chooses one of the four of IEEE 754."""
    states = []
    for mode in range(4):
        write(mode)
        states.append(context.save())
    columns = enumerate(zip(*states, strict=True))
    return tuple(Bound(at, 1, _ROUNDINGS) for at, values in columns if set(values) == {0, 1, 2, 3})


def _common(places: Iterable[set[int]]) -> int | None:
    """The one place that all have in common."""
    common = set.intersection(*places)
    return common.pop() if len(common) == 1 else None


def _missing(found: dict[str, int | None]) -> tuple[str, ...]:
    return tuple(name for name, at in found.items() if at is None)


def _riscv(wide: bool) -> Layout:
    probe = _Probe(const.UC_ARCH_RISCV, const.UC_MODE_RISCV64 if wide else const.UC_MODE_RISCV32)
    uc, a0 = probe.uc, riscv_const.UC_RISCV_REG_A0
    # The FP flags may lie behind what Unicorn saves: take in as many bytes as it needs to see them.
    uc.reg_write(riscv_const.UC_RISCV_REG_MSTATUS, 1 << 13)
    needed, flags = 0, None
    for more in range(0, _MAX_TAIL, 8):
        context = Context(uc, Layout(more))
        uc.reg_write(riscv_const.UC_RISCV_REG_FFLAGS, 0)
        clear = context.save()
        uc.reg_write(riscv_const.UC_RISCV_REG_FFLAGS, 31)
        if context.save() != clear:
            # One word more: the flags are the first bytes of softfloat's status.
            needed = flags = more + 8
            break
    levels = frozenset((0, 1, 3))
    privilege = _written(Context(uc), lambda level: uc.reg_write(riscv_const.UC_RISCV_REG_PRIV, level), levels, 4)
    # lr.w a1, (a0) on an odd address
    values = (0x12345677, 0x76543211)
    address = _common(_places(probe.run("af250510", {a0: v}, [a0]), v.to_bytes(4, "little")) for v in values)
    found = {"floating-point flags": flags, "fault address": address, "privilege": len(privilege) or None}
    return Layout(needed, fault_address=address, bounds=privilege, missing=_missing(found))


def _aarch64() -> Layout:
    probe = _Probe(const.UC_ARCH_ARM64, const.UC_MODE_ARM)
    x0 = arm64_const.UC_ARM64_REG_X0
    # svc #0x1a2b; svc #0x777
    calls = {"614503d4": 0x56001A2B, "e1ee00d4": 0x56000777}
    syndrome = _common(_places(probe.run(code, {}), struct.pack("<I", esr)) for code, esr in calls.items())
    # ldxr x1, [x0] on an odd address
    values = (0x12345677, 0x76543211)
    address = _common(_places(probe.run("017c5fc8", {x0: v}, [x0]), v.to_bytes(8, "little")) for v in values)
    # eret: the cycle counter is brought up to date
    returned = {arm64_const.UC_ARM64_REG_ELR_EL1: _CODE}
    # msr dbgbcr0_el1, x0 to msr dbgbcr5_el1, x0: breakpoints of the guest's own
    breakpoints = _words(0xD51000A0, 8, 6)
    fpcr = arm64_const.UC_ARM64_REG_FPCR
    return Layout(
        fault_address=address,
        syndrome=syndrome,
        bounds=_rounding(probe.context, lambda mode: probe.uc.reg_write(fpcr, mode << 22)),
        objects=_hosts(const.UC_ARCH_ARM64, const.UC_MODE_ARM, breakpoints, {x0: 0x1E5}, 6),
        hosts=_hosts(const.UC_ARCH_ARM64, const.UC_MODE_ARM, "e0039fd6", returned),
        missing=_missing({"syndrome": syndrome, "fault address": address}),
    )


_ARM_SVC, _ARM_MODES = 0x1D3, {1: 0x13, 2: 0x17, 3: 0x1B, 4: 0x12, 5: 0x11}
"""mode bits by the bank that they choose; user and system mode have bank 0"""


def _arm() -> Layout:
    def faulted(code: str, registers: dict[int, int]) -> bytes:
        return _Probe(const.UC_ARCH_ARM, const.UC_MODE_ARM).run(code, registers, registers)

    probe = _Probe(const.UC_ARCH_ARM, const.UC_MODE_ARM)
    r0 = arm_const.UC_ARM_REG_R0
    # ldrex r1, [r0] on an odd address; strex r1, r2, [r0] on one
    loads = {v: faulted("9f1f90e1", {r0: v}) for v in (0x12345677, 0x76543211)}
    address = _common(_places(state, v.to_bytes(8, "little")) for v, state in loads.items())
    status = None
    if address is not None:
        # The status is an int shortly before the address.
        states = loads.values()
        near = range(max(address - 32, 0), address, 4)
        places = [at for at in near if all(int.from_bytes(s[at : at + 4], "little") & 0xF0F == 1 for s in states)]
        status = places[0] if len(places) == 1 else None
    banked, lists = _arm_banks(probe), _arm_lists()
    found = {
        "fault address": address,
        "fault status": status,
        "banked registers": banked.start if banked else None,
        "memory regions": lists,
    }
    # mcr p14, 0, r0, c0, c0, 5 to mcr p14, 0, r0, c0, c5, 5: breakpoints of the guest's own
    breakpoints = _hosts(const.UC_ARCH_ARM, const.UC_MODE_ARM, _words(0xEE000EB0, 0, 6), {r0: 0x1E5}, 6)
    fpscr = arm_const.UC_ARM_REG_FPSCR
    return Layout(
        fault_address=address,
        syndrome=status,
        bounds=_rounding(probe.context, lambda mode: probe.uc.reg_write(fpscr, mode << 22)),
        region=_arm_region(),
        banked=banked or range(0),
        objects=tuple(sorted({*breakpoints, *_arm_regions()})),
        lists=lists,
        # movs pc, lr: the cycle counter is brought up to date
        hosts=_hosts(const.UC_ARCH_ARM, const.UC_MODE_ARM, "0ef0b0e1", {arm_const.UC_ARM_REG_LR: _CODE}),
        missing=_missing(found),
    )


def _arm_banks(probe: _Probe) -> range | None:
    """Eight saved states of 8 bytes, then eight stack pointers and eight links of 4, then r8 to r12 of FIQ mode and of
    the others."""
    uc, marks = probe.uc, {}
    for bank, mode in _ARM_MODES.items():
        uc.reg_write(arm_const.UC_ARM_REG_CPSR, 0x1C0 | mode)
        marks[bank] = tuple(0x5A000000 + (bank << 16) + 0x101 * n for n in range(1, 4))
        for register, value in zip(("SPSR", "SP", "LR"), marks[bank], strict=True):
            uc.reg_write(getattr(arm_const, f"UC_ARM_REG_{register}"), value)
    uc.reg_write(arm_const.UC_ARM_REG_CPSR, 0x1DF)
    state = probe.context.save()
    start = state.find(marks[1][1].to_bytes(4, "little")) - 4
    for bank, (saved, pointer, link) in marks.items():
        for at, value in ((start - 64 + 8 * bank, saved), (start + 4 * bank, pointer), (start + 32 + 4 * bank, link)):
            if int.from_bytes(state[at : at + 4], "little") != value:
                return None
    return range(start - 64, start + 64 + 40)


def _arm_model(model: int) -> Context:
    uc = scratch(const.UC_ARCH_ARM, const.UC_MODE_ARM)
    uc.ctl_set_cpu_model(model)
    return Context(uc)


def _arm_regions() -> set[int]:
    """Addresses of the lists of regions (version 7 and 8 of the architecture), and the CPU's features before them."""
    found: set[int] = set()
    for model in (arm_const.UC_CPU_ARM_CORTEX_R5, arm_const.UC_CPU_ARM_CORTEX_M33):
        engines = [_arm_model(model) for _ in range(_ENGINES)]
        found.update(_different([context.save() for context in engines]))
    return found | {min(found, default=8) - 8}


def _arm_region() -> int | None:
    """RGNR of a Cortex-R5: coprocessor 15, c6, c2, 0."""
    context = _arm_model(arm_const.UC_CPU_ARM_CORTEX_R5)
    found = _written(
        context,
        lambda number: context.uc.reg_write(arm_const.UC_ARM_REG_CP_REG, (15, 0, 0, 6, 2, 0, 0, number)),
        range(1, 16),
        4,
    )
    return found[0].at if len(found) == 1 else None


def _arm_lists() -> int | None:
    """A Cortex-R5 has 16 regions: three lists for their bases, sizes and rights; the others are empty."""
    state = _arm_model(arm_const.UC_CPU_ARM_CORTEX_R5).save()
    filled = (16).to_bytes(4, "little") + bytes(4 * 16)
    start = state.find(filled * 3)
    return start if start >= 0 and not state[start + 3 * len(filled) :].strip(b"\0") else None


# mov %eax, (%ecx) to a page not touched before; mov %ecx, %dr0; mov %ecx, %dr1; mov %ecx, %dr2; mov %ecx, %dr3;
# mov %eax, %dr7: helpers leave the address of translated code that called them; a guest's own breakpoints are objects
_X86_LEAVES_ADDRESSES = "8901 0f23c1 0f23c9 0f23d1 0f23d9 0f23f8"


def _segments() -> dict[str, int | None]:
    """Where segments lie, and the flags of the mode: the same in 32-bit and 64-bit engines."""
    probe = _Probe(const.UC_ARCH_X86, const.UC_MODE_32)

    def state(register: int | None = None, selector: int = 0) -> bytes:
        if register is not None:
            probe.uc.reg_write(register, selector)
        return probe.context.save()

    def segment(register: int) -> int | None:
        selectors = (0x1234, 0x4321)
        return _common(_places(state(register, s), struct.pack("<I4xQ", s, s << 4)) for s in selectors)

    probe.uc.reg_write(x86_const.UC_X86_REG_CR0, 0)  # real mode: any selector will do
    before = state()
    code, stack = segment(x86_const.UC_X86_REG_CS), segment(x86_const.UC_X86_REG_SS)
    words = [struct.unpack(f"<{len(s) // 4}I", s[: len(s) & -4]) for s in (before, state())]
    modes = {4 * at for at, (wide, narrow) in enumerate(zip(*words, strict=True)) if wide & ~narrow & 1 << 4}
    return {"code segment": code, "stack segment": stack, "mode": _common([modes])}


def _hidden(segments: dict[str, int | None]) -> dict[str, tuple[int, int]]:
    code, stack, modes = segments["code segment"], segments["stack segment"], segments["mode"]
    if code is None or stack is None or modes is None:
        return {}
    return {"cs_selector": (code, 4), "cs_base": (code + 8, 8), "ss_base": (stack + 8, 8), "modes": (modes, 4)}


def _x86(mode: int) -> Layout:
    eflags = x86_const.UC_X86_REG_EFLAGS
    rax, rcx = x86_const.UC_X86_REG_RAX, x86_const.UC_X86_REG_RCX
    if mode == const.UC_MODE_32:
        rax, rcx = x86_const.UC_X86_REG_EAX, x86_const.UC_X86_REG_ECX

    def faulted(code: str, registers: dict[int, int]) -> bytes:
        # A fresh engine each time: what an earlier exception left makes the next one a double fault.
        return _Probe(const.UC_ARCH_X86, mode).run(code, registers, registers)

    context = _Probe(const.UC_ARCH_X86, mode).context
    # mov %eax, %ds with selectors that are in no table: #GP(selector); div %ecx: #DE
    protection = {selector: faulted("8ed8", {rax: selector}) for selector in (0x1238, 0x2340)}
    error = _common(_places(state, struct.pack("<I", v)) for v, state in protection.items())
    previous = _common(
        (
            _places(context.save(), struct.pack("<i", -1)),
            _places(protection[0x1238], struct.pack("<I", 13)),
            _places(faulted("f7f1", {rcx: 0}), struct.pack("<I", 0)),
        )
    )
    # nop: a run begins with the condition flags computed
    conditions = (0x8C5, 0x095)
    ran = {v: _Probe(const.UC_ARCH_X86, mode).run("90", {eflags: v}) for v in conditions}
    flags = _common(_places(state, struct.pack("<Q", v)) for v, state in ran.items())
    segments = _segments()
    plain = _Probe(const.UC_ARCH_X86, mode)
    write, plain_context = plain.uc.reg_write, plain.context
    bounds = (
        *_written(plain_context, lambda top: write(x86_const.UC_X86_REG_FPSW, top << 11), range(8), 4),
        *_rounding(plain_context, lambda way: write(x86_const.UC_X86_REG_FPCW, 0x37F | way << 10)),
        *_rounding(plain_context, lambda way: write(x86_const.UC_X86_REG_MXCSR, 0x1F80 | way << 13)),
    )
    return Layout(
        bounds=bounds,
        objects=_hosts(const.UC_ARCH_X86, mode, "0f23f8", {rax: 0x4FF}),  # mov %eax, %dr7
        hosts=_hosts(const.UC_ARCH_X86, mode, _X86_LEAVES_ADDRESSES, {rax: 0x2AA, rcx: _CODE + 0x1800}, 6),
        error_code=error,
        previous_exception=previous,
        flags=flags,
        code_segment=segments["code segment"],
        hidden=_hidden(segments),
        modes=segments["mode"],
        missing=_missing({"error code": error, "previous exception": previous, "flags": flags, **segments}),
    )


_PROBES: dict[str, Callable[[], Layout]] = {
    "UC_ARCH_RISCV UC_MODE_RISCV64": lambda: _riscv(True),
    "UC_ARCH_RISCV UC_MODE_RISCV32": lambda: _riscv(False),
    "UC_ARCH_ARM UC_MODE_ARM": _arm,
    "UC_ARCH_ARM64 UC_MODE_ARM": _aarch64,
    "UC_ARCH_X86 UC_MODE_32": lambda: _x86(const.UC_MODE_32),
    "UC_ARCH_X86 UC_MODE_64": lambda: _x86(const.UC_MODE_64),
}


@cache
def find_layout(engine_arch: str, engine_mode: str) -> Layout:
    """The layout for a family, by ``Arch.engine_arch`` and ``Arch.engine_mode``."""
    try:
        return _PROBES[f"{engine_arch} {engine_mode}"]()
    except unicorn.UcError as e:
        return Layout(missing=(f"anything ({e})",))
