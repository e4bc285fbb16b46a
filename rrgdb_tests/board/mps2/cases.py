# ruff: noqa: E501 - a program a line
"""Short Cortex-M3 programs that take exceptions in all ways; what their handlers see is logged.

Each begins at ``start``, privileged, in thread mode, on MSP, and ends at ``done``. All vectors lead to one handler. It
logs, calls ``on_N`` if the program has one for exception N (lr is EXC_RETURN then, r3 the frame), and has a fault return
to where r10 points. At ``done`` and in the log a program's whole life is seen. Run on QEMU by ``judge.py``.
"""

from __future__ import annotations

LOG = 0x20100000
LOG_BYTES = 0x1000
STACK, PROCESS_STACK = 0x20008000, 0x20004000

PRELUDE = f"""
.syntax unified
.cpu cortex-m3
.thumb
.text
.global _start, done
vectors:
 .word {STACK:#x}, _start + 1
 .rept 46
 .word handler + 1
 .endr
.irp n, 2, 3, 4, 5, 6, 11, 12, 14, 15, 16, 17, 18
.weak on_\\n
.endr
hooks:
 .word 0, 0, on_2, on_3, on_4, on_5, on_6, 0, 0, 0, 0, on_11, on_12, 0, on_14, on_15, on_16, on_17, on_18
.thumb_func
_start:
 ldr r0, =log
 ldr r1, ={LOG:#x}
 str r1, [r0]
 ldr r0, ={PROCESS_STACK:#x}
 msr psp, r0
 movs r0, #0
 movs r1, #0
 b start
.ltorg
.thumb_func
handler:
 ldr r0, =log
 ldr r1, [r0]
 mrs r2, ipsr
 stm r1!, {{r2, r4, r5, r6, r7, r8, r9, lr}}
 tst lr, #4
 ite eq
 mrseq r3, msp
 mrsne r3, psp
 str r3, [r1], #4
 .irp name, msp, psp, control, basepri, primask, faultmask, xpsr
 mrs r2, \\name
 str r2, [r1], #4
 .endr
 mov r12, #8
1: movs r2, #0
 lsrs r2, r3, #29
 cmp r2, #1
 ite eq
 ldreq r2, [r3], #4
 movne r2, #0
 str r2, [r1], #4
 subs r12, #1
 bne 1b
 ldr r2, =0xe000ed00
 .irp offset, 0x04, 0x24, 0x28, 0x2c, 0x34, 0x38
 ldr r3, [r2, #\\offset]
 str r3, [r1], #4
 .endr
 ldr r3, [r2, #0x28]
 str r3, [r2, #0x28]
 ldr r3, [r2, #0x2c]
 str r3, [r2, #0x2c]
 str r1, [r0]
 tst lr, #4
 ite eq
 mrseq r3, msp
 mrsne r3, psp
 mrs r2, ipsr
 cmp r2, #18
 bhi 2f
 ldr r0, =hooks
 ldr r0, [r0, r2, lsl #2]
 cbz r0, 2f
 orr r0, #1
 push {{r3, lr}}
 blx r0
 pop {{r3, lr}}
2: mrs r2, ipsr
 cmp r2, #2
 bls 3f
 cmp r2, #6
 bhi 3f
 str r10, [r3, #24]
 ldr r2, [r3, #28]
 bic r2, #0x06000000
 bic r2, #0x0000fc00
 orr r2, #0x01000000
 str r2, [r3, #28]
3: bx lr
.ltorg
.thumb_func
done: b done
.equ log, {LOG - 4:#x}
.thumb_func
start:
"""

_ON_PSP = "movs r0, #2\nmsr control, r0\nisb\n"
_FAULTS_ON = "ldr r0, =0xe000ed24\nldr r1, =0x70000\nstr r1, [r0]\n"
_END = "\nb.w done\n.ltorg\n"


def _fault(code: str, before: str = "") -> str:
    return f"{before}ldr r10, =1f\n{code}\n1: nop{_END}"


CASES: dict[str, str] = {
    "svc on msp": f"svc 1\nmovs r4, #1\nsvc 2{_END}",
    "svc on psp": f"{_ON_PSP}svc 1\nmovs r4, #1\nsvc 2{_END}",
    "svc on a stack that is not aligned": f"{_ON_PSP}push {{r0}}\nsvc 1\npop {{r0}}\nsvc 2{_END}",
    "svc without STKALIGN": f"ldr r0, =0xe000ed14\nmovs r1, #0\nstr r1, [r0]\npush {{r0}}\nsvc 1\npop {{r0}}\nsvc 2{_END}",
    "svc unprivileged": f"movs r0, #3\nmsr control, r0\nisb\nsvc 1\nmrs r5, control\nmrs r6, primask\nsvc 2{_END}",
    "svc within IT": f"movs r4, #1\ncmp r4, #1\nittee eq\nsvceq 1\nmoveq r5, #2\nmovne r5, #3\nmovne r6, #3\nsvc 2{_END}",
    "svc with PRIMASK": _fault("cpsid i\nsvc 1"),
    "svc with FAULTMASK off again": f"cpsid f\nmrs r4, faultmask\ncpsie f\nsvc 1{_END}",
    "svc below BASEPRI": _fault(
        "ldr r0, =0xe000ed1c\nldr r1, =0x40000000\nstr r1, [r0]\nmovs r0, #0x40\nmsr basepri, r0\nsvc 1"
    ),
    "svc above BASEPRI": f"ldr r0, =0xe000ed1c\nldr r1, =0x20000000\nstr r1, [r0]\nmovs r0, #0x40\nmsr basepri, r0\nsvc 1{_END}",
    "svc in its own handler": f"ldr r10, =1f\nmov r4, #0\nsvc 1\nb done\non_11: cbnz r4, 1f\nmovs r4, #1\nsvc 2\n1: bx lr{_END}",
    "svc in the handler of PendSV": (
        "ldr r0, =0xe000ed20\nldr r1, =0x00ff0000\nstr r1, [r0]\n"
        f"ldr r0, =0xe000ed04\nldr r1, =0x10000000\nstr r1, [r0]\nnop\nb done\non_14: push {{lr}}\nsvc 1\npop {{pc}}{_END}"
    ),
    "undefined": _fault("udf 1"),
    "undefined, enabled": _fault("udf 1", _FAULTS_ON),
    "undefined, wide, on psp": _fault("udf.w 1", _FAULTS_ON + _ON_PSP),
    "undefined within IT": _fault("movs r4, #0\ncmp r4, #0\nitt eq\nmoveq r5, #1\nudfeq 1", _FAULTS_ON),
    "no coprocessor": _fault("mrc p15, 0, r0, c1, c0, 0", _FAULTS_ON),
    "bkpt": _fault("bkpt 1"),
    "state": _fault("ldr r0, =1f\nbic r0, #1\nbx r0", _FAULTS_ON),
    "state, escalated": _fault("ldr r0, =1f\nbic r0, #1\nbx r0"),
    "load of nothing": _fault("ldr r0, =0x30000010\nldr r1, [r0]"),
    "load of nothing, enabled": _fault("ldr r0, =0x30000010\nldr r1, [r0, #4]", _FAULTS_ON),
    "store to nothing, enabled": _fault("ldr r0, =0x30000010\nstr r1, [r0]", _FAULTS_ON),
    "store to nothing within IT": _fault(
        "ldr r0, =0x30000010\ncmp r0, r0\nittt eq\nmoveq r4, #1\nstreq r1, [r0]\nmoveq r5, #1", _FAULTS_ON
    ),
    "jump to nothing": _fault("ldr r0, =0x30000011\nbx r0", _FAULTS_ON),
    "jump to a device": _fault("ldr r0, =0x40004001\nbx r0", _FAULTS_ON),
    "jump to EXC_RETURN in a thread": _fault("mvn r0, #6\nbx r0", _FAULTS_ON),
    "mov of EXC_RETURN to pc": f"ldr r10, =2f\nsvc 1\n2: b done\non_11: mvn r0, #6\nmov pc, r0{_END}",
    "exclusive access that is not aligned": _fault("ldr r0, =0x20000001\nldrex r1, [r0]", _FAULTS_ON),
    "bad EXC_RETURN": _fault(
        "svc 1\nb 1f\non_11: add sp, #8\nmvn r0, #4\nbx r0\non_6: mvn r1, #6\nstr r1, [sp, #4]\nbx lr\n", _FAULTS_ON
    ),
    "EXC_RETURN to a handler from the only one": _fault(
        "svc 1\nb 1f\non_11: add sp, #8\nmvn r0, #14\nbx r0\non_6: mvn r1, #6\nstr r1, [sp, #4]\nbx lr\n", _FAULTS_ON
    ),
    "EXC_RETURN to a thread from a nested handler": _fault(
        "ldr r0, =0xe000ed20\nldr r1, =0x00ff0000\nstr r1, [r0]\nldr r0, =0xe000ed04\nldr r1, =0x10000000\nstr r1, [r0]\n"
        "nop\nb 1f\non_14: push {lr}\nsvc 1\npop {pc}\non_11: add sp, #8\nmvn r0, #6\nbx r0\n"
        "on_6: mvn r1, #14\nstr r1, [sp, #4]\nbx lr\n",
        _FAULTS_ON,
    ),
    "EXC_RETURN with NONBASETHRDENA": (
        "ldr r0, =0xe000ed14\nldr r1, =0x201\nstr r1, [r0]\nldr r0, =0xe000ed20\nldr r1, =0x00ff0000\nstr r1, [r0]\n"
        "ldr r0, =0xe000ed04\nldr r1, =0x10000000\nstr r1, [r0]\nnop\nb done\non_14: push {lr}\nsvc 1\npop {pc}\n"
        f"on_11: movs r7, #1\nldr r0, [r3, #28]\nbfc r0, #0, #9\nstr r0, [r3, #28]\nldr r0, =done\nstr r0, [r3, #24]\nadd sp, #8\nmvn r0, #6\nbx r0{_END}"
    ),
    "EXC_RETURN of an exception that is not active": _fault(
        "svc 1\nb 1f\non_11: ldr r0, =0xe000ed24\nldr r1, =0x70000\nstr r1, [r0]\nbx lr\n", _FAULTS_ON
    ),
    "stacked xPSR of a handler, EXC_RETURN of a thread": _fault(
        "svc 1\nb 1f\non_11: movs r0, #5\nldr r1, [r3, #28]\norrs r1, r0\nstr r1, [r3, #28]\nbx lr\n"
        "on_6: ldr r1, [r3, #28]\nbfc r1, #0, #9\nstr r1, [r3, #28]\nbx lr\n",
        _FAULTS_ON,
    ),
    "stacking on nothing": f"ldr r0, =0x30000100\nmsr psp, r0\n{_ON_PSP}svc 1\nb done\non_5: ldr r0, =0x20004000\nmsr psp, r0\nldr r1, =done\nstr r1, [r0, #24]\nldr r1, =0x01000000\nstr r1, [r0, #28]\nbx lr\non_3: b on_5\non_11: bx lr{_END}",
    "stacking on nothing, enabled": f"{_FAULTS_ON}ldr r0, =0x30000100\nmsr psp, r0\n{_ON_PSP}svc 1\nb done\non_5: ldr r0, =0x20004000\nmsr psp, r0\nldr r1, =done\nstr r1, [r0, #24]\nldr r1, =0x01000000\nstr r1, [r0, #28]\nbx lr\non_3: b on_5\non_11: bx lr{_END}",
    "unstacking from nothing": f"{_FAULTS_ON}{_ON_PSP}svc 1\nb done\non_11: ldr r0, =0x30000100\nmsr psp, r0\nbx lr\non_5: ldr r0, =0x20004000\nmsr psp, r0\nldr r1, =done\nstr r1, [r0, #24]\nldr r1, =0x01000000\nstr r1, [r0, #28]\nbx lr{_END}",
    "PendSV": f"ldr r0, =0xe000ed04\nldr r1, =0x10000000\nstr r1, [r0]\nmovs r4, #1\nmovs r5, #2\ncpsid i\nstr r1, [r0]\nldr r6, [r0]\ncpsie i\nnop\nnop{_END}",
    "PendSV cleared": f"cpsid i\nldr r0, =0xe000ed04\nldr r1, =0x10000000\nstr r1, [r0]\nlsrs r1, #1\nstr r1, [r0]\ncpsie i\nnop\nldr r4, [r0]{_END}",
    "NMI": f"cpsid f\nldr r0, =0xe000ed04\nldr r1, =0x80000000\nstr r1, [r0]\nnop\nmrs r4, faultmask\ncpsie f{_END}",
    "interrupts by STIR, priorities": (
        "ldr r0, =0xe000e100\nmov r1, #7\nstr r1, [r0]\nldr r0, =0xe000e400\nldr r1, =0x00204060\nstr r1, [r0]\ncpsid i\n"
        f"ldr r0, =0xe000ef00\nmovs r1, #0\nstr r1, [r0]\nmovs r1, #1\nstr r1, [r0]\nmovs r1, #2\nstr r1, [r0]\nldr r2, =0xe000ed04\nldr r4, [r2]\ncpsie i\nnop\nnop{_END}"
    ),
    "preemption": (
        "ldr r0, =0xe000e100\nmov r1, #7\nstr r1, [r0]\nldr r0, =0xe000e400\nldr r1, =0x00204060\nstr r1, [r0]\n"
        f"ldr r0, =0xe000ef00\nmovs r1, #0\nstr r1, [r0]\nnop\nb done\non_16: ldr r0, =0xe000ef00\nmovs r1, #1\nstr r1, [r0]\nadds r4, #1\nbx lr\non_17: ldr r0, =0xe000ef00\nmovs r1, #2\nstr r1, [r0]\nadds r5, #1\nbx lr{_END}"
    ),
    "no preemption within a group": (
        "ldr r0, =0xe000ed0c\nldr r1, =0x05fa0700\nstr r1, [r0]\nldr r0, =0xe000e100\nmov r1, #7\nstr r1, [r0]\nldr r0, =0xe000e400\nldr r1, =0x00204060\nstr r1, [r0]\n"
        f"ldr r0, =0xe000ef00\nmovs r1, #0\nstr r1, [r0]\nnop\nb done\non_16: ldr r0, =0xe000ef00\nmovs r1, #1\nstr r1, [r0]\nmovs r1, #2\nstr r1, [r0]\nadds r4, #1\nbx lr\non_17: adds r5, #1\nbx lr{_END}"
    ),
    "chained to a lower one": (
        f"ldr r0, =0xe000ed20\nldr r1, =0x00ff0000\nstr r1, [r0]\n{_ON_PSP}svc 1\nmovs r4, #1\nb done\non_11: ldr r0, =0xe000ed04\nldr r1, =0x10000000\nstr r1, [r0]\nbx lr{_END}"
    ),
    "pended and enabled by SHCSR": f"{_FAULTS_ON}ldr r0, =0xe000ed24\nldr r1, =0x71000\nldr r10, =1f\nstr r1, [r0]\nnop\n1: nop{_END}",
    "vector table moved": f"ldr r0, =0x20000200\nmovs r1, #0\nmov r2, #64\n1: ldr r3, [r1], #4\nstr r3, [r0], #4\nsubs r2, #1\nbne 1b\nldr r0, =0xe000ed08\nldr r1, =0x20000200\nstr r1, [r0]\nsvc 1\nldr r4, [r0]{_END}",
    "FAULTMASK cleared by return": f"svc 1\nmrs r4, faultmask\nb done\non_11: cpsid f\nbx lr{_END}",
    "division by zero": f"movs r0, #7\nmovs r1, #0\nsdiv r4, r0, r1\nudiv r5, r0, r1{_END}",
    "division by zero, trapped": _fault(
        "ldr r0, =0xe000ed14\nldr r1, =0x210\nstr r1, [r0]\nmovs r1, #0\nudiv r4, r0, r1", _FAULTS_ON
    ),
    "signed division by zero, trapped": _fault(
        "ldr r0, =0xe000ed14\nldr r1, =0x210\nstr r1, [r0]\nmovs r1, #0\nmov r4, #9\nsdiv r4, r0, r1", _FAULTS_ON
    ),
    "access that is not aligned, trapped": _fault(
        "ldr r0, =0xe000ed14\nldr r1, =0x208\nstr r1, [r0]\nldr r0, =0x20000001\nldr r4, [r0]", _FAULTS_ON
    ),
    "double load that is not aligned": _fault("ldr r0, =0x20000002\nldrd r4, r5, [r0]", _FAULTS_ON),
    "multiple load that is not aligned": _fault("ldr r0, =0x20000002\nldm r0, {r4, r5}", _FAULTS_ON),
    "registers of an unprivileged thread": (
        "movs r0, #0x20\nmsr basepri, r0\nmovs r0, #1\nmsr control, r0\nisb\nmrs r4, basepri\nmrs r5, msp\nmrs r6, control\nmovs r0, #0\nmsr basepri, r0\nmsr control, r0\ncpsid i\nmrs r7, control"
        f"{_END}"
    ),
    "priority registers": (
        "ldr r0, =0xe000e400\nmov r1, #255\nstrb r1, [r0]\nldrb r4, [r0]\nmsr basepri, r1\nmrs r5, basepri\nmovs r1, #0x40\nmsr basepri, r1\nmovs r1, #0x60\n"
        f"msr basepri_max, r1\nmrs r6, basepri\nldr r0, =0xe000ed20\nmov r1, #-1\nstr r1, [r0]\nldr r7, [r0]\nmovs r1, #0\nmsr basepri, r1{_END}"
    ),
    "lockup: a fault in the handler of HardFault": f"udf 1\nb done\non_3: udf 2\nbx lr{_END}",
    "lockup: a fault with FAULTMASK": f"cpsid f\nudf 1{_END}",
    "lockup: no vector table": f"ldr r0, =0xe000ed08\nldr r1, =0x30000000\nstr r1, [r0]\nudf 1{_END}",
}
