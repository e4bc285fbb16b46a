"""Where Unicorn keeps what its interface does not show of 32-bit ARM; ``probes.thumb`` has what hooks must reach."""

from __future__ import annotations

from unicorn import arm_const
from unicorn import unicorn_const as const

from rrgdb.engine.unicorn.probes.experiments import (
    CODE,
    ENGINES,
    Probe,
    common,
    different,
    found_at,
    hosts,
    missing,
    rounding,
    words,
    written,
)
from rrgdb.engine.unicorn.probes.layout import Context, Layout
from rrgdb.engine.unicorn.probes.structure import scratch

_MODES = {1: 0x13, 2: 0x17, 3: 0x1B, 4: 0x12, 5: 0x11}
"""mode bits by the bank that they choose; user and system mode have bank 0"""


def layout() -> Layout:
    def faulted(code: str, registers: dict[int, int]) -> bytes:
        return Probe(const.UC_ARCH_ARM, const.UC_MODE_ARM).run(code, registers, registers)

    probe = Probe(const.UC_ARCH_ARM, const.UC_MODE_ARM)
    r0 = arm_const.UC_ARM_REG_R0
    # ldrex r1, [r0] on an odd address; strex r1, r2, [r0] on one
    loads = {v: faulted("9f1f90e1", {r0: v}) for v in (0x12345677, 0x76543211)}
    address = common(found_at(state, v.to_bytes(8, "little")) for v, state in loads.items())
    status = None
    if address is not None:
        # The status is an int shortly before the address.
        states = loads.values()
        near = range(max(address - 32, 0), address, 4)
        places = [at for at in near if all(int.from_bytes(s[at : at + 4], "little") & 0xF0F == 1 for s in states)]
        status = places[0] if len(places) == 1 else None
    banked, lists = _banks(probe), _lists()
    found = {
        "fault address": address,
        "fault status": status,
        "banked registers": banked.start if banked else None,
        "memory regions": lists,
    }
    # mcr p14, 0, r0, c0, c0, 5 to mcr p14, 0, r0, c0, c5, 5: breakpoints of the guest's own
    breakpoints = hosts(const.UC_ARCH_ARM, const.UC_MODE_ARM, words(0xEE000EB0, 0, 6), {r0: 0x1E5}, 6)
    fpscr = arm_const.UC_ARM_REG_FPSCR
    return Layout(
        fault_address=address,
        syndrome=status,
        bounds=rounding(probe.context, lambda mode: probe.uc.reg_write(fpscr, mode << 22)),
        region=_region(),
        banked=banked or range(0),
        hidden=_hidden(banked.start) if banked else {},
        objects=tuple(sorted({*breakpoints, *_regions()})),
        lists=lists,
        # movs pc, lr: the cycle counter is brought up to date
        hosts=hosts(const.UC_ARCH_ARM, const.UC_MODE_ARM, "0ef0b0e1", {arm_const.UC_ARM_REG_LR: CODE}),
        missing=missing(found),
    )


def _banks(probe: Probe) -> range | None:
    """Eight saved states of 8 bytes, then eight stack pointers and eight links of 4, then r8 to r12 of FIQ mode and of
    the others."""
    uc, marks = probe.uc, {}
    for bank, mode in _MODES.items():
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


def _hidden(start: int) -> dict[str, tuple[int, int]]:
    """Place and bytes of each of ``arch.BANKED``; the banks begin at ``start``."""
    names = ("usr", "svc", "abt", "und", "irq", "fiq")
    found = {f"spsr_{name}": (start + 8 * bank, 4) for bank, name in enumerate(names) if bank}
    found |= {f"sp_{name}": (start + 64 + 4 * bank, 4) for bank, name in enumerate(names)}
    found |= {f"lr_{name}": (start + 96 + 4 * bank, 4) for bank, name in enumerate(names)}
    found |= {f"r{8 + n}_usr": (start + 128 + 4 * n, 4) for n in range(5)}
    return found | {f"r{8 + n}_fiq": (start + 148 + 4 * n, 4) for n in range(5)}


def _model(model: int) -> Context:
    uc = scratch(const.UC_ARCH_ARM, const.UC_MODE_ARM)
    uc.ctl_set_cpu_model(model)
    return Context(uc)


def _regions() -> set[int]:
    """Addresses of the lists of regions (version 7 and 8 of the architecture), and the CPU's features before them."""
    found: set[int] = set()
    for model in (arm_const.UC_CPU_ARM_CORTEX_R5, arm_const.UC_CPU_ARM_CORTEX_M33):
        engines = [_model(model) for _ in range(ENGINES)]
        found.update(different([context.save() for context in engines]))
    return found | {min(found, default=8) - 8}


def _region() -> int | None:
    """RGNR of a Cortex-R5: coprocessor 15, c6, c2, 0."""
    context = _model(arm_const.UC_CPU_ARM_CORTEX_R5)
    found = written(
        context,
        lambda number: context.uc.reg_write(arm_const.UC_ARM_REG_CP_REG, (15, 0, 0, 6, 2, 0, 0, number)),
        range(1, 16),
        4,
    )
    return found[0].at if len(found) == 1 else None


def _lists() -> int | None:
    """A Cortex-R5 has 16 regions: three lists for their bases, sizes and rights; the others are empty."""
    state = _model(arm_const.UC_CPU_ARM_CORTEX_R5).save()
    filled = (16).to_bytes(4, "little") + bytes(4 * 16)
    start = state.find(filled * 3)
    return start if start >= 0 and not state[start + 3 * len(filled) :].strip(b"\0") else None
