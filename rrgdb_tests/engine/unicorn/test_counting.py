"""What counts as one instruction, and what an instruction that fails leaves behind."""

from __future__ import annotations

import threading

import pytest

from rrgdb.arch.base import ExceptionKind, Trap
from rrgdb.engine.base import EngineError, ExitKind, Stops
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, DATA_SIZE, DEVICE, FAMILIES, HOLE, Bench, assemble, pass_by

X86 = ("i386", "x86_64")
RISCV = ("riscv64", "riscv32")
ARM = ("arm", "thumb")
END = DATA + DATA_SIZE
ALL = {
    "nop": dict.fromkeys(FAMILIES, "nop"),
    "jump to r": {
        "riscv64": "jr a0",
        "riscv32": "jr a0",
        "aarch64": "br x10",
        "arm": "bx r10",
        "thumb": "bx r10",
        "i386": "jmp eax",
        "x86_64": "jmp rax",
    },
    "load": {
        "riscv64": "lw a1, 0(a0)",
        "riscv32": "lw a1, 0(a0)",
        "aarch64": "ldr w11, [x10]",
        "arm": "ldr r11, [r10]",
        "thumb": "ldr r11, [r10]",
        "i386": "mov ebx, [eax]",
        "x86_64": "mov ebx, [rax]",
    },
    "store": {
        "riscv64": "sw a1, 0(a0)",
        "riscv32": "sw a1, 0(a0)",
        "aarch64": "str w11, [x10]",
        "arm": "str r11, [r10]",
        "thumb": "str r11, [r10]",
        "i386": "mov [eax], ebx",
        "x86_64": "mov [rax], ebx",
    },
    "undefined": {
        "riscv64": ".word 0xffffffff",
        "riscv32": ".word 0xffffffff",
        "aarch64": "udf #7",
        "arm": "udf #7",
        "thumb": "udf #7",
        "i386": "ud2",
        "x86_64": "ud2",
    },
    "breakpoint": {
        "riscv64": "c.ebreak",
        "riscv32": "c.ebreak",
        "aarch64": "brk #1",
        "arm": "bkpt #1",
        "thumb": "bkpt #1",
        "i386": "int3",
        "x86_64": "int3",
    },
}
POINTER = {
    "riscv64": "a0",
    "riscv32": "a0",
    "aarch64": "x10",
    "arm": "r10",
    "thumb": "r10",
    "i386": "eax",
    "x86_64": "rax",
}


def bench(family: str, what: str, pointer: int = 0, before: int = 1, after: int = 4) -> Bench:
    """``before`` NOPs, the instruction, ``after`` NOPs."""
    lines = ["nop"] * before + [ALL[what][family]] + ["nop"] * after
    made = Bench.with_code(family, "\n".join(lines))
    made.engine.write(POINTER[family], pointer)
    return made


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("load", ExceptionKind.READ_FAULT),
        ("store", ExceptionKind.WRITE_FAULT),
        ("undefined", ExceptionKind.UNDEFINED),
        ("breakpoint", ExceptionKind.BREAKPOINT),
    ],
)
def test_an_instruction_that_fails_is_not_counted(family: str, what: str, kind: ExceptionKind) -> None:
    b = bench(family, what, HOLE)
    b.run(1)
    before, pc = b.state(), b.pc
    for _ in range(3):  # trying again is the same
        exception = b.to_exception()
        assert (exception.kind, exception.pc, b.engine.icount, b.pc) == (kind, pc, 1, pc)
        assert exception.address == (HOLE if what in ("load", "store") else 0)
        assert b.state() == before


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("what", ["load", "store"])
def test_an_access_that_runs_into_nothing_can_be_tried_again(family: str, what: str) -> None:
    b = bench(family, what, END - 2)
    b.run(1)
    before = b.engine.registers_digest()
    states = set()
    for _ in range(2):
        exception = b.to_exception()
        assert exception.kind in (ExceptionKind.READ_FAULT, ExceptionKind.WRITE_FAULT)
        assert b.engine.icount == 1
        assert b.engine.registers_digest() == before
        states.add(b.state())  # the engine stores the part that is there
    assert len(states) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_jump_into_nothing_retires(family: str) -> None:
    b = bench(family, "jump to r", HOLE)
    assert b.run(1).kind is ExitKind.LIMIT
    assert b.run(2).kind is ExitKind.LIMIT
    assert (b.engine.icount, b.pc) == (2, HOLE)
    for _ in range(2):
        exception = b.to_exception()
        assert (exception.kind, exception.pc, exception.address) == (ExceptionKind.FETCH_FAULT, HOLE, HOLE)
        assert b.engine.icount == 2
    b.engine.arm(Stops(((HOLE, None),)))
    assert b.run(10).kind is ExitKind.BREAKPOINT
    pass_by(b.engine)
    assert b.run(10).kind is ExitKind.EXCEPTION


@pytest.mark.parametrize("family", FAMILIES)
def test_running_off_the_end_of_memory_counts_all_instructions(family: str) -> None:
    nop = assemble(family, "nop")[: 2 if family in RISCV else 4]
    b = Bench.with_code(family, nop * (64 // len(nop)), at=END - 64)
    exception = b.to_exception()
    assert (exception.kind, exception.pc) == (ExceptionKind.FETCH_FAULT, END)
    assert b.engine.icount == 64 // len(nop)


@pytest.mark.parametrize("family", [*RISCV, *X86])
def test_an_instruction_half_of_which_is_missing_faults_where_it_begins(family: str) -> None:
    code = b"\x01\x00" * 7 + b"\x13\x05" if family in RISCV else b"\x90" * 13 + b"\xb8\x01\x02"
    b = Bench.with_code(family, code, at=END - 16)
    count = 7 if family in RISCV else 13
    assert b.run(count).kind is ExitKind.LIMIT
    exception = b.to_exception()
    assert exception.kind is ExceptionKind.FETCH_FAULT
    assert exception.pc == END - 16 + count * (2 if family in RISCV else 1)
    assert b.engine.icount == count


@pytest.mark.parametrize("family", FAMILIES)
def test_code_in_a_device_faults_or_runs_but_never_crashes(family: str) -> None:
    b = bench(family, "jump to r", DEVICE)
    exit_ = b.run(100)
    assert exit_.kind in (ExitKind.EXCEPTION, ExitKind.LIMIT, ExitKind.TRAP)
    assert b.engine.icount >= 2


@pytest.mark.parametrize("family", X86)
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_rep_counts_its_elements_and_one(family: str, count: int) -> None:
    source = f"mov ecx, {count}\nmov edi, {DATA}\nmov esi, {DATA + 256}\nrep movsb\nnop\nhlt"
    b = Bench.with_code(family, source)
    while b.run(b.engine.icount + 1).kind is not ExitKind.TRAP:
        pass
    assert b.engine.icount == 3 + count + 1 + 1


@pytest.mark.parametrize("family", X86)
def test_hlt_is_a_trap_before_it_counts(family: str) -> None:
    b = Bench.with_code(family, "nop\nhlt\nnop")
    exit_ = b.run(100)
    assert (exit_.kind, exit_.trap, b.engine.icount, b.pc) == (ExitKind.TRAP, Trap.HALT, 1, CODE + 1)


@pytest.mark.parametrize("family", X86)
def test_pause_does_not_put_the_cpu_to_sleep(family: str) -> None:
    b = Bench.with_code(family, "nop\npause\nnop\nnop\nnop")
    exit_ = b.run(4)
    assert (exit_.kind, b.engine.icount, b.pc) == (ExitKind.LIMIT, 4, CODE + 5)


@pytest.mark.parametrize("family", X86)
@pytest.mark.parametrize(("source", "number", "length"), [("int 64", 64, 2), ("int3", 3, 1), ("div ecx", 0, 2)])
def test_interrupts_by_instruction(family: str, source: str, number: int, length: int) -> None:
    b = Bench.with_code(family, f"nop\n{source}\nnop")
    b.engine.write("ecx" if family == "i386" else "rcx", 0)
    for _ in range(4):  # a second #DE is not a double fault: the first was delivered, or is asked about again
        exception = b.to_exception()
        assert (exception.number, exception.pc, exception.next_pc) == (number, CODE + 1, CODE + 1 + length)
        assert b.engine.icount == 1


@pytest.mark.parametrize("family", X86)
def test_protection_faults_carry_their_selector(family: str) -> None:
    b = Bench.with_code(family, "mov ax, 0x1238\nmov ds, eax\nnop")
    for _ in range(2):
        exception = b.to_exception()
        assert (exception.kind, exception.number, exception.detail) == (ExceptionKind.NATIVE, 13, 0x1238)


@pytest.mark.parametrize("family", X86)
def test_a_single_step_trap_comes_behind_the_instruction(family: str) -> None:
    push, pop = ("pushf", "popf") if family == "i386" else ("pushfq", "popfq")
    sp = "esp" if family == "i386" else "rsp"
    for stops in ((), (1, 2, 3, 4)):
        b = Bench.with_code(family, f"{push}\nor dword ptr [{sp}], 0x100\n{pop}\nnop\nnop\nnop")
        for icount in stops[:-1]:
            assert b.run(icount).kind is ExitKind.LIMIT
        exit_ = b.run(4)
        assert exit_.kind is ExitKind.EXCEPTION
        assert exit_.exception is not None
        assert (exit_.exception.kind, exit_.exception.number) == (ExceptionKind.NATIVE, 1)
        # The instruction behind popf has run: to enter the handler is what counts instead.
        assert (b.engine.icount, exit_.exception.pc, b.engine.read_memory(b.pc - 2, 2)[-1:]) == (3, b.pc, b"\x90")


@pytest.mark.parametrize("family", X86)
def test_int1_is_a_debug_exception(family: str) -> None:
    b = Bench.with_code(family, "nop\n.byte 0xf1\nnop")
    for _ in range(2):
        exception = b.to_exception()
        assert (exception.kind, exception.number) == (ExceptionKind.NATIVE, 1)
        assert (exception.pc, exception.next_pc, b.engine.icount) == (CODE + 1, CODE + 2, 1)


def test_syscall_is_defined() -> None:
    b = Bench.with_code("x86_64", "nop\nsyscall\nnop")
    assert b.to_exception().kind is ExceptionKind.UNDEFINED
    b.engine.write("efer", b.engine.read("efer") | 1)
    exception = b.to_exception()
    assert (exception.kind, exception.pc, exception.next_pc) == (ExceptionKind.SYSCALL, CODE + 1, CODE + 3)
    assert b.engine.icount == 1


def test_sysenter_is_defined() -> None:
    b = Bench.with_code("i386", "nop\nsysenter\nnop")
    exception = b.to_exception()
    assert (exception.kind, exception.number, exception.detail) == (ExceptionKind.NATIVE, 13, 0)
    b.engine.write("sysenter_cs", 8)
    assert b.to_exception().kind is ExceptionKind.SYSCALL
    assert b.engine.icount == 1


@pytest.mark.parametrize("family", ["riscv64", "riscv32", "aarch64", *ARM])
def test_wfi_is_a_trap(family: str) -> None:
    b = Bench.with_code(family, "nop\nwfi\nnop")
    exit_ = b.run(10)
    assert (exit_.kind, exit_.trap, b.engine.icount) == (ExitKind.TRAP, Trap.HALT, 1)


@pytest.mark.parametrize("family", ["riscv64", "riscv32", "aarch64", *ARM])
def test_system_calls_stand_at_their_instruction(family: str) -> None:
    b = Bench.with_code(family, "nop\necall\nnop" if family in RISCV else "nop\nsvc #5\nnop")
    exception = b.to_exception()
    size = len(assemble(family, "nop"))
    length = 2 if family == "thumb" else 4
    assert (exception.kind, exception.pc) == (ExceptionKind.SYSCALL, CODE + size)
    assert (exception.next_pc, b.engine.icount) == (CODE + size + length, 1)
    if family == "aarch64":
        assert exception.detail == 0x56000005


def test_misaligned_exclusives_tell_address_and_syndrome() -> None:
    b = Bench.with_code("aarch64", "nop\nldxr x1, [x10]\nnop")
    b.engine.write("x10", DATA + 1)
    exception = b.to_exception()
    assert (exception.kind, exception.address) == (ExceptionKind.READ_FAULT, DATA + 1)
    assert exception.detail is not None
    assert exception.detail >> 26 == 0x25
    assert exception.detail & 0x3F == 0x21  # alignment


@pytest.mark.parametrize("family", RISCV)
def test_misaligned_atomics_tell_their_address(family: str) -> None:
    b = Bench.with_code(family, "nop\namoadd.w a1, a2, (a0)\nnop")
    b.engine.write("a0", DATA + 2)
    exception = b.to_exception()
    assert (exception.kind, exception.number, exception.address) == (ExceptionKind.WRITE_FAULT, 6, DATA + 2)


ACCESSES = {
    "riscv64": {1: ("lbu", "sb"), 2: ("lhu", "sh"), 4: ("lwu", "sw"), 8: ("ld", "sd")},
    "riscv32": {1: ("lbu", "sb"), 2: ("lhu", "sh"), 4: ("lw", "sw")},
    "aarch64": {1: ("ldrb w", "strb w"), 2: ("ldrh w", "strh w"), 4: ("ldr w", "str w"), 8: ("ldr x", "str x")},
    **{family: {1: ("ldrb r", "strb r"), 2: ("ldrh r", "strh r"), 4: ("ldr r", "str r")} for family in ARM},
    "i386": {1: "bl", 2: "bx", 4: "ebx"},
    "x86_64": {1: "bl", 2: "bx", 4: "ebx", 8: "rbx"},
}


def _device_program(family: str, size: int) -> str:
    how = ACCESSES[family][size]
    if isinstance(how, str):
        pointer = POINTER[family]
        return f"nop\nmov {how}, [{pointer} + 16]\nmov [{pointer} + 32], {how}\nnop\nnop\nnop"
    load, store = how
    if family == "aarch64":
        return f"nop\n{load}11, [x10, #16]\n{store}11, [x10, #32]\nnop\nnop\nnop"
    if family in ARM:
        return f"nop\n{load}11, [r10, #16]\n{store}11, [r10, #32]\nnop\nnop\nnop"
    return f"nop\n{load} a1, 16(a0)\n{store} a1, 32(a0)\nnop\nnop\nnop"


@pytest.mark.parametrize(("family", "size"), [(f, n) for f, sizes in ACCESSES.items() for n in sizes])
def test_device_accesses_count_once_and_happen_once(family: str, size: int) -> None:
    whole: list[tuple[str, int, int, int]] = []
    for slices in ([5], [1, 2, 3, 4, 5], [2, 5], [3, 5]):
        b = Bench.with_code(family, _device_program(family, size))
        b.engine.write(POINTER[family], DEVICE)
        for limit in slices:
            assert b.run(limit).kind is ExitKind.LIMIT
            assert b.engine.icount == limit
        assert sum(n for kind, _, n, _ in b.accesses if kind == "r") == size
        value = sum(v << 8 * (offset - 32) for kind, offset, _, v in b.accesses if kind == "w")
        assert value == 0x8877665544332211 & (1 << 8 * size) - 1
        whole = whole or b.accesses
        assert b.accesses == whole


@pytest.mark.parametrize("family", FAMILIES)
def test_a_device_stops_the_run_behind_its_access(family: str) -> None:
    b = bench(family, "store", DEVICE)
    b.on_access = lambda: b.engine.limit(b.engine.icount)
    assert b.run(100).kind is ExitKind.LIMIT
    assert b.engine.icount == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_device_stops_the_run_before_memory_that_is_not_there(family: str) -> None:
    whole = bench(family, "store", DEVICE, before=0, after=0)
    code = whole.engine.read_memory(CODE, 4 if family == "aarch64" or family in ARM else 2)
    b = Bench.with_code(family, code, at=END - len(code))
    b.engine.write(POINTER[family], DEVICE)
    b.on_access = lambda: b.engine.limit(b.engine.icount)
    assert b.run(100).kind is ExitKind.LIMIT
    assert (b.engine.icount, b.pc) == (1, END)
    assert b.to_exception().kind is ExceptionKind.FETCH_FAULT


@pytest.mark.parametrize("family", FAMILIES)
def test_an_error_in_a_device_comes_out_of_the_run(family: str) -> None:
    b = bench(family, "store", DEVICE)

    def fail() -> None:
        raise EngineError("the device is broken")

    b.on_access = fail
    with pytest.raises(EngineError, match="the device is broken"):
        b.run(100)
    assert b.engine.icount == 2
    b.on_access = lambda: None
    assert b.run(3).kind is ExitKind.LIMIT


INCREMENT = {
    "riscv64": "1: amoadd.w a1, a2, (a0)\naddi a3, a3, 1\nj 1b",
    "riscv32": "1: amoadd.w a1, a2, (a0)\naddi a3, a3, 1\nj 1b",
    "aarch64": "1: ldxr w11, [x10]\nadd w11, w11, #1\nstxr w12, w11, [x10]\nadd x3, x3, #1\nb 1b",
    **dict.fromkeys(ARM, "1: ldrex r11, [r10]\nadd r11, r11, #1\nstrex r12, r11, [r10]\nadd r3, r3, #1\nb 1b"),
    "i386": "1: lock add dword ptr [eax], 1\ninc edx\njmp 1b",
    "x86_64": "1: lock add dword ptr [rax], 1\ninc edx\njmp 1b",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_interrupts_from_another_thread_repeat_nothing(family: str) -> None:
    b = Bench.with_code(family, INCREMENT[family])
    for name, value in ((POINTER[family], DATA), *([("a2", 1)] if family in RISCV else [])):
        b.engine.write(name, value)
    b.engine.write_memory(DATA, bytes(4))
    done = threading.Event()

    def disturb() -> None:
        while not done.wait(0.0003):
            b.engine.interrupt()

    thread = threading.Thread(target=disturb)
    thread.start()
    stops = 0
    try:
        while stops < 60:
            exit_ = b.run(1 << 40)
            assert exit_.kind is ExitKind.INTERRUPT
            b.engine.clear_interrupt()
            stops += 1
    finally:
        done.set()
        thread.join()
    b.engine.clear_interrupt()
    loop = 5 if family == "aarch64" or family in ARM else 3
    b.run(-(-b.engine.icount // loop) * loop)
    count = int.from_bytes(b.engine.read_memory(DATA, 4), "little")
    assert count == b.engine.icount // loop & 0xFFFFFFFF
