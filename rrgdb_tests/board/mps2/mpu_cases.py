# ruff: noqa: E501 - a program a line
"""Programs for the memory protection unit, as those of ``cases``."""

from __future__ import annotations

_FAULTS_ON = "ldr r0, =0xe000ed24\nldr r1, =0x70000\nstr r1, [r0]\n"
_ON_PSP = "movs r0, #2\nmsr control, r0\nisb\n"
_UNPRIVILEGED = "movs r0, #3\nmsr control, r0\nisb\n"
_END = "\nb.w done\n.ltorg\n"
_TARGET = 0x20001000
_XN = 1 << 28
_OFF = "ldr r2, =0xe000ed94\nmovs r1, #0\nstr r1, [r2]\n"
_AGAIN = "ldr r2, =0xe000ed94\nmovs r1, #5\nstr r1, [r2]\n"
"""QEMU forgets what it knows of pages: behind a subregion that is off it takes the whole page for what is below"""
_REPAIRED = f"on_4: {_OFF}ldr r0, =0x20004000\nmsr psp, r0\nldr r1, =done\nstr r1, [r0, #24]\nldr r1, =0x01000000\nstr r1, [r0, #28]\nmov r3, r0\nbx lr\n.ltorg\n"
"""a handler of MemManage that makes a new frame"""


def _region(number: int, base: int, bits: int, access: int, more: int = 0) -> str:
    """A region of 1 << ``bits`` bytes; ``access``: RASR.AP."""
    attributes = access << 24 | bits - 1 << 1 | 1 | more
    return f"ldr r0, =0xe000ed98\nmov r1, #{number}\nstr r1, [r0]\nldr r1, ={base:#x}\nstr r1, [r0, #4]\nldr r1, ={attributes:#x}\nstr r1, [r0, #8]\n"


def _on(control: int = 5) -> str:
    return f"ldr r0, =0xe000ed94\nmov r1, #{control}\nstr r1, [r0]\nldr r0, ={_TARGET:#x}\n"


_CODE = _region(0, 0, 16, 6)
_RAM = _region(1, 0x20000000, 22, 3)


def _tries(*codes: str) -> str:
    """Each is one instruction, which may fault."""
    return "\n".join(f"ldr r10, =9{n}f\n{code}\n9{n}: nop" for n, code in enumerate(codes)) + _END


_ACCESSES = ("ldr r4, [r0]", "str r4, [r0]", "ldrb r5, [r0, #7]", "strh r5, [r0, #2]")

MPU_CASES: dict[str, str] = {
    **{
        f"MPU: AP {access}, {who}": _FAULTS_ON
        + _CODE
        + _RAM
        + _region(5, _TARGET, 12, access)
        + _on()
        + ("" if who == "privileged" else f"{_UNPRIVILEGED}ldr r0, ={_TARGET:#x}\n")
        + _tries(*_ACCESSES)
        for access in range(8)
        for who in ("privileged", "unprivileged")
    },
    **{
        f"MPU: code with AP {access}{name}, {who}": f"{_FAULTS_ON}ldr r0, ={_TARGET:#x}\nldr r1, =0xbf004770\nstr r1, [r0]\n{_CODE}{_RAM}"
        + _region(5, _TARGET, 12, access, more)
        + _on()
        + ("" if who == "privileged" else f"{_UNPRIVILEGED}ldr r0, ={_TARGET:#x}\n")
        + _tries("add r1, r0, #1\nblx r1")
        for access in (0, 1, 2, 5, 6)
        for name, more in (("", 0), (" and XN", _XN))
        for who in ("privileged", "unprivileged")
    },
    "MPU: background, privileged": _FAULTS_ON
    + _CODE
    + _RAM
    + _on(1)
    + _tries(
        "ldr r0, =0x21000000\nldr r4, [r0]",
        "ldr r0, =0x40004000\nstr r4, [r0, #8]",
        "ldr r0, =0xe000ed00\nldr r5, [r0]",
        "ldr r0, =0x30000000\nldr r5, [r0]",
    ),
    "MPU: default map, privileged": _FAULTS_ON
    + _on(5)
    + _tries(
        "ldr r0, =0x21000000\nldr r4, [r0]",
        "ldr r0, =0x40004000\nldr r4, [r0, #8]",
        "ldr r0, =0x30000000\nldr r5, [r0]",
        "ldr r0, =0x40004001\nbx r0",
        "ldr r0, =0x30000001\nbx r0",
        "ldr r0, =0xe000ed01\nbx r0",
    ),
    "MPU: default map, unprivileged": _FAULTS_ON
    + _CODE
    + _RAM
    + _on(5)
    + _UNPRIVILEGED
    + _tries(
        "ldr r0, =0x21000000\nldr r4, [r0]",
        "ldr r0, =0x40004000\nldr r4, [r0, #8]",
        "ldr r0, =0x30000001\nbx r0",
        "ldr r0, =0xe000ed00\nldr r5, [r0]",
    ),
    "MPU: unprivileged code in no region": f"{_FAULTS_ON}{_on(5)}ldr r10, =1f\n{_UNPRIVILEGED}movs r4, #1\n1: b done\non_4: {_OFF}bx lr{_END}",
    "MPU: subregions": _FAULTS_ON
    + _region(3, _TARGET, 11, 0, 0b01010110 << 8)
    + _on()
    + _tries(*(f"{_AGAIN}ldr r4, [r0, #{256 * n + 4 * n}]" for n in range(8))),
    "MPU: subregions of the least size": _FAULTS_ON
    + _region(3, _TARGET, 8, 0, 0b01010110 << 8)
    + _on()
    + _tries(*(f"{_AGAIN}ldr r4, [r0, #{32 * n}]" for n in range(9))),
    "MPU: none in 128 bytes": _FAULTS_ON
    + _region(3, _TARGET, 7, 0, 0xFF << 8)
    + _on()
    + _tries("ldr r4, [r0]", "ldr r4, [r0, #124]", "ldr r4, [r0, #128]"),
    "MPU: the higher number decides": _FAULTS_ON
    + _region(3, _TARGET, 12, 0)
    + _region(5, _TARGET + 0x400, 10, 6)
    + _region(2, _TARGET + 0x800, 10, 3)
    + _on()
    + _tries("ldr r4, [r0]", "ldr r4, [r0, #0x400]", "str r4, [r0, #0x400]", "ldr r4, [r0, #0x800]"),
    "MPU: a subregion that is off shows what is below": _FAULTS_ON
    + _region(3, _TARGET, 12, 6)
    + _region(5, _TARGET, 12, 0, 0b10 << 8)
    + _on()
    + _tries("ldr r4, [r0]", "ldr r4, [r0, #0x200]", "str r4, [r0, #0x200]"),
    "MPU: regions that are wrong": _FAULTS_ON
    + _region(3, _TARGET + 0x20, 12, 0)
    + _region(4, _TARGET, 1, 0)
    + _on()
    + _tries("ldr r4, [r0]", "ldr r4, [r0, #0x20]"),
    "MPU: 32 bytes": _FAULTS_ON
    + _region(3, _TARGET + 0x40, 5, 0)
    + _on()
    + _tries(
        "ldr r4, [r0, #0x3c]",
        "ldr r4, [r0, #0x3e]",
        "ldr r4, [r0, #0x40]",
        "ldr r4, [r0, #0x5d]",
        "ldr r4, [r0, #0x60]",
        "ldrb r4, [r0, #0x5f]",
    ),
    "MPU: loads over the end of a page": _FAULTS_ON
    + _region(3, _TARGET + 0x400, 5, 0)
    + _region(4, _TARGET + 0x7E0, 5, 0)
    + _on()
    + _tries(
        "ldr r4, [r0, #0x3fe]",
        "ldr r4, [r0, #0x3fc]",
        "ldrh r4, [r0, #0x3ff]",
        "ldr r4, [r0, #0x7fe]",
        "ldr r4, [r0, #0x800]",
    ),
    "MPU: stores over the end of a page": _FAULTS_ON
    + _region(3, _TARGET + 0x400, 5, 6)
    + _on()
    + _tries("str r4, [r0, #0x3fe]", "str r4, [r0, #0x3fc]", "strh r4, [r0, #0x3ff]", "str r4, [r0, #0x41e]"),
    "MPU: multiple accesses within": _FAULTS_ON
    + _region(3, _TARGET, 12, 6)
    + _on()
    + _tries("ldm r0, {r4, r5, r6}", "stm r0!, {r4, r5}", "strd r4, r5, [r0], #8", "stmdb r0!, {r4, r5}"),
    "MPU: accesses of all kinds": _FAULTS_ON
    + _region(3, _TARGET, 12, 0)
    + _on()
    + _tries(
        "ldrd r4, r5, [r0, #8]",
        "ldrex r4, [r0, #4]",
        "tbb [r0, r1]",
        "ldrsh r4, [r0, #6]",
        "ldr r4, [r0], #4",
        "strb r4, [r0, #4]!",
        "ldr r4, [r0, r1, lsl #2]",
        "pld [r0]",
        "mov r7, sp\nmov sp, r0\npop {r4}",
        "mov sp, r7\nldrt r4, [r0]",
    ),
    "MPU: unprivileged loads of a privileged thread": _FAULTS_ON
    + _region(3, _TARGET, 12, 1)
    + _on()
    + _tries("ldr r4, [r0]", "ldrt r4, [r0]", "strht r4, [r0, #4]"),
    "MPU: within IT": _FAULTS_ON
    + _region(3, _TARGET, 12, 0)
    + _on()
    + _tries("cmp r0, r0\nitett eq\nmoveq r4, #1\nldrne r5, [r0]\nldreq r5, [r0]\nmoveq r6, #1"),
    "MPU: passed over": _FAULTS_ON + _region(3, _TARGET, 12, 0) + _on() + _tries("cmp r0, r0\nit ne\nldrne r5, [r0]"),
    "MPU: not aligned comes first": _FAULTS_ON
    + _region(3, _TARGET, 12, 0)
    + _on()
    + _tries("adds r0, #2\nldm r0, {r4, r5}"),
    "MPU: escalated": _region(3, _TARGET, 12, 0) + _on() + _tries("ldr r4, [r0]", "str r4, [r0]"),
    "MPU: not with FAULTMASK": _FAULTS_ON
    + _region(3, _TARGET, 12, 0)
    + _on()
    + f"cpsid f\nldr r4, [r0]\ncpsie f\n{_tries('ldr r5, [r0]')}",
    "MPU: not in HardFault": _FAULTS_ON.replace("0x70000", "0x10000")
    + _region(3, _TARGET, 12, 0)
    + _on()
    + f"ldr r10, =1f\nudf 1\n1: {_tries('ldr r5, [r0]')}on_3: ldr r0, ={_TARGET:#x}\nldr r4, [r0]\nbx lr\n",
    "MPU: not in NMI": _FAULTS_ON
    + _region(3, _TARGET, 12, 0)
    + _on()
    + f"ldr r0, =0xe000ed04\nldr r1, =0x80000000\nstr r1, [r0]\nnop\nldr r0, ={_TARGET:#x}\n{_tries('ldr r5, [r0]')}on_2: ldr r0, ={_TARGET:#x}\nldr r4, [r0]\nbx lr\n",
    "MPU: lockup: in HardFault with HFNMIENA": _region(3, _TARGET, 12, 0)
    + _on(7)
    + f"udf 1\nb done\non_3: ldr r0, ={_TARGET:#x}\nldr r4, [r0]\nbx lr{_END}",
    "MPU: HFNMIENA alone": _FAULTS_ON + _region(3, _TARGET, 12, 0) + _on(2) + _tries("ldr r4, [r0]"),
    "MPU: lockup: with FAULTMASK and HFNMIENA": _FAULTS_ON
    + _region(3, _TARGET, 12, 0)
    + _on(7)
    + f"cpsid f\nldr r4, [r0]{_END}",
    "MPU: in a handler": _FAULTS_ON
    + _CODE
    + _RAM
    + _region(3, _TARGET, 12, 1)
    + _on()
    + f"{_UNPRIVILEGED}ldr r0, ={_TARGET:#x}\nsvc 1\n{_tries('ldr r5, [r0]')}on_11: ldr r4, [r0]\nldr r0, ={_TARGET:#x}\nldr r4, [r0]\nbx lr\n.ltorg\n",
    "MPU: switched off and on": _FAULTS_ON
    + _region(3, _TARGET, 12, 0)
    + _on()
    + _tries(
        "ldr r4, [r0]",
        _OFF + "ldr r4, [r0]",
        "movs r1, #5\nstr r1, [r2]\nldr r4, [r0]",
        "ldr r1, =0x20005003\nstr r1, [r2, #8]\nldr r4, [r0]",
        "ldr r1, =0x20001014\nstr r1, [r2, #8]\nldr r1, =0x06000017\nstr r1, [r2, #12]\nstr r4, [r0]",
    ),
    "MPU: in a loop": _FAULTS_ON
    + "mov r8, #100\nldr r0, =0x20001000\n2: ldr r4, [r0]\nsubs r8, #1\nbne 2b\nmov r8, #100\nmov r9, r0\n"
    + _region(3, _TARGET, 12, 0)
    + _on()
    + f"ldr r10, =1f\nb 2b\n1: nop{_END}",
    "MPU: stacking on what is denied": _FAULTS_ON
    + _region(3, 0x20003000, 12, 6)
    + _on()
    + f"{_ON_PSP}svc 1\nb done\n{_REPAIRED}",
    "MPU: stacking on what is denied in part": _FAULTS_ON
    + _region(3, 0x20003FE0, 5, 6)
    + _on()
    + f"ldr r0, =0x20003ff0\nmsr psp, r0\nldr r0, =0x20003fd0\nldr r4, =0x1234\nstr r4, [r0]\n{_ON_PSP}svc 1\nldr r0, =0x20003fd0\nldm r0, {{r4, r5, r6, r7}}\nb done\n{_REPAIRED.replace('=done', '=1f')}1: ldr r0, =0x20003fd0\nldm r0, {{r4, r5, r6, r7}}\nldrd r8, r9, [r0, #16]{_END}",
    "MPU: stacking without privilege": _FAULTS_ON
    + _CODE
    + _RAM
    + _region(3, 0x20003000, 12, 1)
    + _on()
    + f"{_UNPRIVILEGED}svc 1\nb done\n{_REPAIRED}",
    "MPU: unstacking without privilege": _FAULTS_ON
    + _CODE
    + _RAM
    + _on()
    + f"{_UNPRIVILEGED}svc 1\nmovs r4, #7\nb done\non_11: {_region(3, 0x20003000, 12, 1)}bx lr\n.ltorg\n{_REPAIRED}",
    "MPU: unstacking to a handler": _FAULTS_ON
    + "ldr r0, =0xe000ed20\nldr r1, =0x00ff0000\nstr r1, [r0]\n"
    + _region(3, 0x20000000, 22, 1)
    + _on()
    + f"ldr r0, =0xe000ed04\nldr r1, =0x10000000\nstr r1, [r0]\nnop\nb done\non_14: push {{lr}}\nsvc 1\npop {{pc}}\non_11: bx lr\non_4: {_OFF}bx lr{_END}",
}
