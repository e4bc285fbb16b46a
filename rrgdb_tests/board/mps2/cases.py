# ruff: noqa: E501 - a program a line
"""Short Cortex-M3 programs that take exceptions in all ways; what their handlers see is logged.

Each begins at ``start``, privileged, in thread mode, on MSP, and ends at ``done``. All vectors lead to one handler. It
logs, calls ``on_N`` if the program has one for exception N (lr is EXC_RETURN then, r3 the frame), and has a fault return
to where r10 points. At ``done`` and in the log a program's whole life is seen. Run on QEMU by ``judge.py``.
"""

from __future__ import annotations

from rrgdb_tests.board.mps2.mpu_cases import MPU_CASES

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
_TRAP_UNALIGNED = _FAULTS_ON + "ldr r0, =0xe000ed14\nldr r1, =0x208\nstr r1, [r0]\nmovs r1, #0\nmovs r2, #0\n"
_UNPRIVILEGED = "movs r0, #3\nmsr control, r0\nisb\n"
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
    "double store that is not aligned": _fault("ldr r0, =0x20000002\nstrd r4, r5, [r0, #8]", _FAULTS_ON),
    "double load that is not aligned, post-indexed": _fault("ldr r0, =0x20000001\nldrd r4, r5, [r0], #8", _FAULTS_ON),
    "multiple store that is not aligned": _fault("ldr r0, =0x20000003\nstm r0!, {r4, r5}", _FAULTS_ON),
    "multiple store downwards that is not aligned": _fault("ldr r0, =0x20000103\nstmdb r0!, {r4, r5, r8}", _FAULTS_ON),
    "multiple load that is not aligned, wide": _fault("ldr r0, =0x20000102\nldmia.w r0!, {r4, r9}", _FAULTS_ON),
    "multiple load that is not aligned, of nothing": _fault("ldr r0, =0x30000102\nldm r0, {r4, r9}", _FAULTS_ON),
    "multiple load that is not aligned, escalated": _fault("ldr r0, =0x20000102\nldm r0, {r4, r9}"),
    "multiple load that is not aligned, on a device": _fault("ldr r0, =0x40004002\nldm r0, {r4, r9}", _FAULTS_ON),
    "multiple load that is not aligned within IT": _fault(
        "ldr r0, =0x20000002\ncmp r0, r0\nitett eq\nmoveq r4, #1\nldmne r0, {r5, r6}\nldmeq r0, {r5, r6}\nmoveq r7, #1",
        _FAULTS_ON,
    ),
    "multiple load that is not aligned, passed over": f"ldr r0, =0x20000002\ncmp r0, r0\nitt ne\nldmne r0, {{r5, r6}}\nldrdne r5, r6, [r0]\nmovs r4, #1{_END}",
    "multiple loads in a loop, the last not aligned": _fault(
        "ldr r0, =0x20000000\nmov r4, #200\n2: ldm r0!, {r5, r6}\nsubs r4, #1\nbne 2b\nadd r0, #2\nmov r4, #200\nb 2b",
        _FAULTS_ON,
    ),
    "base that is computed in its block": _fault(
        "mov r4, #200\n2: add r2, sp, #8\nstm r2!, {r4, r5}\nldr r3, =0x20000100\nldm r3, {r6, r7}\nsubs r4, #1\nbne 2b\n"
        "movs r2, #1\ncmp r2, #2\nit eq\naddeq r2, sp, #8\nstm r2!, {r4, r5}",
        _FAULTS_ON,
    ),
    "base that is a constant of its block": _fault(
        "mov r8, #200\n2: movw r0, #0x0100\nmovt r0, #0x2000\nstm r0!, {r4, r5}\nmov r1, #0x20000000\nldm r1, {r6, r7}\nmov r2, #0x3fc\nstrd r6, r7, [r1]\n"
        "mov r3, #0x20002000\nldm r3, {r6, r7}\nsubs r8, #1\nbne 2b\nldr r3, =0x20000302\nldm r3, {r6, r7}",
        _FAULTS_ON,
    ),
    "base whose literal is written": _fault(
        "mov r8, #200\nadr r0, 3f\nmovs r4, #0\n2: ldr r3, 3f\nldm r3, {r6, r7}\nsubs r8, #1\nbne 2b\nldr r1, =0x20000101\nstr r1, [r0]\nmov r8, #200\nb 2b\n"
        ".align 2\n3: .word 0x20000100",
        _FAULTS_ON,
    ),
    "base that is a constant and not aligned": _fault(
        "mov r8, #200\nmovw r0, #0x0102\nmovt r0, #0x2000\n2: subs r8, #1\nbne 2b\nmovw r0, #0x0102\nmovt r0, #0x2000\nldm r0, {r4, r5}",
        _FAULTS_ON,
    ),
    "base that is loaded by itself": _fault(
        "ldr r0, =0x20000000\nldr r1, =0x20000012\nstr r1, [r0]\nldm r0, {r0, r1}\nldm r0, {r2, r3}", _FAULTS_ON
    ),
    "accesses that are not aligned and need not be": f"ldr r0, =0x20000001\nldr r1, =0x01020304\nstr r1, [r0]\nldrh r4, [r0, #1]\nldrsh r5, [r0]\nstrh r4, [r0, #6]\nldr r6, [r0, #4]{_END}",
    "halfword load that is not aligned, trapped": _fault("ldr r0, =0x20000101\nldrh r4, [r0]", _TRAP_UNALIGNED),
    "signed halfword load by register that is not aligned, trapped": _fault(
        "ldr r0, =0x20000101\nldrsh r4, [r1, r0]", _TRAP_UNALIGNED
    ),
    "halfword store that is not aligned, trapped": _fault("ldr r0, =0x20000101\nstrh r4, [r0, #2]", _TRAP_UNALIGNED),
    "word store by shifted register that is not aligned, trapped": _fault(
        "ldr r0, =0x20000101\nstr r4, [r0, r2, lsl #2]", _TRAP_UNALIGNED
    ),
    "word load downwards that is not aligned, trapped": _fault(
        "ldr r0, =0x20000101\nldr r4, [r0, #-4]!", _TRAP_UNALIGNED
    ),
    "word store, post-indexed that is not aligned, trapped": _fault(
        "ldr r0, =0x20000101\nstr r4, [r0], #4", _TRAP_UNALIGNED
    ),
    "unprivileged word load that is not aligned, trapped": _fault(
        "ldr r0, =0x20000101\nldrt r4, [r0, #4]", _TRAP_UNALIGNED
    ),
    "wide word store that is not aligned, trapped": _fault(
        "ldr r0, =0x20000101\nstr.w r4, [r0, #0x200]", _TRAP_UNALIGNED
    ),
    "table branch that is not aligned, trapped": _fault("ldr r0, =0x20000101\ntbh [r0, r2]", _TRAP_UNALIGNED),
    "exclusive load that is not aligned, trapped": _fault("ldr r0, =0x20000101\nldrexh r4, [r0]", _TRAP_UNALIGNED),
    "word load of a device that is not aligned, trapped": _fault(
        "ldr r0, =0x20000101\nldr r0, =0x40004002\nldr r4, [r0]", _TRAP_UNALIGNED
    ),
    "what is aligned, with the trap": (
        "ldr r0, =0x20000101\n"
        + "ldrb r4, [r0]\nldrsb r5, [r0, #2]\nstrb r4, [r0], #3\nldr r6, [r0]\nldrh r6, [r0, #2]\npush {r0, r1}\npop {r0, r1}\nldr r7, =1234\npld [r0, #1]\nldrd r4, r5, [r0]"
    ).join((_TRAP_UNALIGNED, _END)),
    "word load that is not aligned, no longer trapped": f"{_TRAP_UNALIGNED}ldr r0, =0xe000ed14\nmov r1, #0x200\nstr r1, [r0]\nldr r0, =0x20000001\nldr r4, [r0]{_END}",
    "division by zero in a loop, trapped late": _fault(
        "mov r4, #200\nmov r5, #9\nmovs r1, #0\n2: udiv r6, r5, r1\nsubs r4, #1\nbne 2b\nldr r0, =0xe000ed14\nldr r2, =0x210\nstr r2, [r0]\nmov r4, #200\nb 2b",
        _FAULTS_ON,
    ),
    "division by zero within IT, trapped": _fault(
        "ldr r0, =0xe000ed14\nldr r1, =0x210\nstr r1, [r0]\nmovs r1, #0\ncmp r1, #0\nitte eq\nmoveq r4, #1\nudiveq r5, r0, r1\nmovne r6, #1",
        _FAULTS_ON,
    ),
    "division by zero within IT, passed over": f"ldr r0, =0xe000ed14\nldr r1, =0x210\nstr r1, [r0]\nmovs r1, #0\ncmp r1, #0\nit ne\nudivne r5, r0, r1\nmovs r4, #1{_END}",
    "unprivileged SysTick load": _fault("ldr r0, =0xe000e010\nldr r1, [r0, #4]", _FAULTS_ON + _UNPRIVILEGED),
    "unprivileged load of CPUID": _fault("ldr r0, =0xe000ed00\nldr r1, [r0]", _FAULTS_ON + _UNPRIVILEGED),
    "unprivileged store to ICSR": _fault(
        "ldr r0, =0xe000ed00\nmov r1, #0x10000000\nstr r1, [r0, #4]", _FAULTS_ON + _UNPRIVILEGED
    ),
    "unprivileged byte load of priorities": _fault(
        "ldr r0, =0xe000e400\nldrb r1, [r0, #3]", _FAULTS_ON + _UNPRIVILEGED
    ),
    "unprivileged store to STIR": _fault("ldr r0, =0xe000ef00\nmovs r1, #1\nstr r1, [r0]", _FAULTS_ON + _UNPRIVILEGED),
    "unprivileged double load within IT": _fault(
        "ldr r0, =0xe000e100\ncmp r0, r0\nitt eq\nldrdeq r4, r5, [r0]\nmoveq r6, #1", _FAULTS_ON + _UNPRIVILEGED
    ),
    "unprivileged multiple store": _fault("ldr r0, =0xe000e280\nstm r0!, {r4, r5}", _FAULTS_ON + _UNPRIVILEGED),
    "unprivileged load of the debug part of the bus": _fault(
        "ldr r0, =0xe0001000\nldr r1, [r0]", _FAULTS_ON + _UNPRIVILEGED
    ),
    "unprivileged load of the rest of the bus": _fault("ldr r0, =0xe0042000\nldr r1, [r0]", _FAULTS_ON + _UNPRIVILEGED),
    "unprivileged load behind the bus": _fault("ldr r0, =0xe0100000\nldr r1, [r0]", _FAULTS_ON + _UNPRIVILEGED),
    "unprivileged store to STIR that may": f"ldr r0, =0xe000ed14\nldr r1, =0x202\nstr r1, [r0]\nldr r0, =0xe000e100\nmovs r1, #2\nstr r1, [r0]\n{_UNPRIVILEGED}ldr r0, =0xe000ef00\nmovs r1, #1\nstr r1, [r0]\nnop{_END}",
    "unprivileged load in a privileged thread": _fault("ldr r0, =0xe000ed00\nldr r4, [r0]\nldrt r1, [r0]", _FAULTS_ON),
    "privileged again in a handler": _fault(
        f"{_UNPRIVILEGED}svc 1\nldr r0, =0xe000ed00\nldr r7, [r0]\nb 1f\non_11: ldr r0, =0xe000ed00\nldr r4, [r0]\nbx lr\n.ltorg\n",
        _FAULTS_ON,
    ),
    "unprivileged loads in a loop": _fault(
        "mov r8, #100\nldr r0, =0xe000ed00\n2: ldr r4, [r0]\nsubs r8, #1\nbne 2b\nmov r8, #100\nmovs r1, #1\nmsr control, r1\nb 2b",
        _FAULTS_ON,
    ),
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

CASES |= MPU_CASES
