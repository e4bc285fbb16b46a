"""Where Unicorn keeps what its interface does not show of x86."""

from __future__ import annotations

import struct

from unicorn import unicorn_const as const
from unicorn import x86_const

from rrgdb.engine.unicorn.probes.experiments import CODE, Probe, common, found_at, hosts, missing, rounding, written
from rrgdb.engine.unicorn.probes.layout import Layout

# mov %eax, (%ecx) to a page not touched before; mov %ecx, %dr0; mov %ecx, %dr1; mov %ecx, %dr2; mov %ecx, %dr3;
# mov %eax, %dr7: helpers leave the address of translated code that called them; a guest's own breakpoints are objects
_LEAVES_ADDRESSES = "8901 0f23c1 0f23c9 0f23d1 0f23d9 0f23f8"


def _segments() -> dict[str, int | None]:
    """Where segments lie, and the flags of the mode: the same in 32-bit and 64-bit engines."""
    probe = Probe(const.UC_ARCH_X86, const.UC_MODE_32)

    def state(register: int | None = None, selector: int = 0) -> bytes:
        if register is not None:
            probe.uc.reg_write(register, selector)
        return probe.context.save()

    def segment(register: int) -> int | None:
        selectors = (0x1234, 0x4321)
        return common(found_at(state(register, s), struct.pack("<I4xQ", s, s << 4)) for s in selectors)

    probe.uc.reg_write(x86_const.UC_X86_REG_CR0, 0)  # real mode: any selector will do
    before = state()
    code, stack = segment(x86_const.UC_X86_REG_CS), segment(x86_const.UC_X86_REG_SS)
    words = [struct.unpack(f"<{len(s) // 4}I", s[: len(s) & -4]) for s in (before, state())]
    modes = {4 * at for at, (wide, narrow) in enumerate(zip(*words, strict=True)) if wide & ~narrow & 1 << 4}
    return {"code segment": code, "stack segment": stack, "mode": common([modes])}


def _hidden(segments: dict[str, int | None]) -> dict[str, tuple[int, int]]:
    code, stack, modes = segments["code segment"], segments["stack segment"], segments["mode"]
    if code is None or stack is None or modes is None:
        return {}
    return {"cs_selector": (code, 4), "cs_base": (code + 8, 8), "ss_base": (stack + 8, 8), "modes": (modes, 4)}


def layout(mode: int) -> Layout:
    eflags = x86_const.UC_X86_REG_EFLAGS
    rax, rcx = x86_const.UC_X86_REG_RAX, x86_const.UC_X86_REG_RCX
    if mode == const.UC_MODE_32:
        rax, rcx = x86_const.UC_X86_REG_EAX, x86_const.UC_X86_REG_ECX

    def faulted(code: str, registers: dict[int, int]) -> bytes:
        # A fresh engine each time: what an earlier exception left makes the next one a double fault.
        return Probe(const.UC_ARCH_X86, mode).run(code, registers, registers)

    context = Probe(const.UC_ARCH_X86, mode).context
    # mov %eax, %ds with selectors that are in no table: #GP(selector); div %ecx: #DE
    protection = {selector: faulted("8ed8", {rax: selector}) for selector in (0x1238, 0x2340)}
    error = common(found_at(state, struct.pack("<I", v)) for v, state in protection.items())
    previous = common(
        (
            found_at(context.save(), struct.pack("<i", -1)),
            found_at(protection[0x1238], struct.pack("<I", 13)),
            found_at(faulted("f7f1", {rcx: 0}), struct.pack("<I", 0)),
        )
    )
    # nop: a run begins with the condition flags computed
    conditions = (0x8C5, 0x095)
    ran = {v: Probe(const.UC_ARCH_X86, mode).run("90", {eflags: v}) for v in conditions}
    flags = common(found_at(state, struct.pack("<Q", v)) for v, state in ran.items())
    segments = _segments()
    plain = Probe(const.UC_ARCH_X86, mode)
    write, plain_context = plain.uc.reg_write, plain.context
    bounds = (
        *written(plain_context, lambda top: write(x86_const.UC_X86_REG_FPSW, top << 11), range(8), 4),
        *rounding(plain_context, lambda way: write(x86_const.UC_X86_REG_FPCW, 0x37F | way << 10)),
        *rounding(plain_context, lambda way: write(x86_const.UC_X86_REG_MXCSR, 0x1F80 | way << 13)),
    )
    return Layout(
        bounds=bounds,
        objects=hosts(const.UC_ARCH_X86, mode, "0f23f8", {rax: 0x4FF}),  # mov %eax, %dr7
        hosts=hosts(const.UC_ARCH_X86, mode, _LEAVES_ADDRESSES, {rax: 0x2AA, rcx: CODE + 0x1800}, 6),
        error_code=error,
        previous_exception=previous,
        flags=flags,
        code_segment=segments["code segment"],
        hidden=_hidden(segments),
        modes=segments["mode"],
        missing=missing({"error code": error, "previous exception": previous, "flags": flags, **segments}),
    )
