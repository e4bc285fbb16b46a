"""What scripts do besides: fix-ups, moved program counters, stops, errors, code that changes, memory that moves."""

from __future__ import annotations

import threading
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from unicorn import UcError, x86_const
from unicorn import unicorn_const as const

import rrgdb
from rrgdb.engine.base import EngineError
from rrgdb_tests.script.rig import CODE, DATA, DEVICE, PAGE, Trace, assemble, check, new_uc, plain_and_recorded

RAX, RBX, RCX, RIP = (
    x86_const.UC_X86_REG_RAX,
    x86_const.UC_X86_REG_RBX,
    x86_const.UC_X86_REG_RCX,
    x86_const.UC_X86_REG_RIP,
)


class Script:
    """A script for x86-64: ``text`` is its program; ``hooks`` adds what it hooks; runs it to its end."""

    def __init__(self, text: str, hooks: Any = lambda _uc: None, *, again: bool = False) -> None:
        self.code = assemble("x86_64", text)
        self.hooks = hooks
        self.again = again
        self.trace = Trace()

    def __call__(self, uc: Any) -> Any:
        self.trace = trace = Trace()
        uc.mem_map(CODE, 2 * PAGE)
        uc.mem_map(DATA, 2 * PAGE)
        uc.mem_write(CODE, self.code)
        uc.hook_add(const.UC_HOOK_CODE, trace)
        self.hooks(uc)
        seen: list[Any] = []
        for _ in range(2 if self.again else 1):
            try:
                uc.emu_start(CODE, CODE + len(self.code))
            except (UcError, ZeroDivisionError) as e:
                seen.append(str(e))
        seen += [uc.reg_read(r) for r in (RAX, RBX, RCX, RIP)]
        return seen, bytes(uc.mem_read(DATA, PAGE)), trace.pcs


def agree(tmp_path: Path, script: Script) -> Any:
    expected, got, path = plain_and_recorded(tmp_path, script, "x86_64")
    assert got == expected
    check(path, got[-1])
    return got


LOOP = "mov $20,%ecx; 1: mov %ecx,0x200000(,%rcx,4); inc %eax; loop 1b; nop"


def test_memory_is_mapped_on_a_fault(tmp_path: Path) -> None:
    def hooks(uc: Any) -> None:
        def unmapped(uc: Any, _access: int, address: int, _size: int, _value: int, _data: Any) -> bool:
            uc.mem_map(address & -PAGE, PAGE)
            uc.mem_write(address & -PAGE, b"\x11" * PAGE)
            return True

        uc.hook_add(const.UC_HOOK_MEM_READ_UNMAPPED | const.UC_HOOK_MEM_WRITE_UNMAPPED, unmapped)

    agree(tmp_path, Script("mov 0x500010,%eax; inc %eax; mov %eax,0x600020; mov 0x600024,%ebx; nop", hooks))


def test_code_is_mapped_on_a_fetch(tmp_path: Path) -> None:
    def hooks(uc: Any) -> None:
        def unmapped(uc: Any, _access: int, address: int, _size: int, _value: int, _data: Any) -> bool:
            uc.mem_map(address & -PAGE, PAGE)
            uc.mem_write(0x70_0000, assemble("x86_64", "mov $7,%eax; inc %ebx; jmp *%rdx", 0x70_0000))
            return True

        uc.hook_add(const.UC_HOOK_MEM_FETCH_UNMAPPED, unmapped)

    text = "mov $0x700000,%eax; lea 1f(%rip),%rdx; jmp *%rax; nop; 1: inc %ecx; nop"
    agree(tmp_path, Script(text, hooks))


def test_an_unmapped_read_ends_the_run(tmp_path: Path) -> None:
    seen, _, _ = agree(tmp_path, Script("mov $3,%eax; mov 0x500010,%ebx; nop", again=True))
    assert "UC_ERR_READ_UNMAPPED" in seen[0]


@pytest.mark.parametrize("start", ["fninit; ", ""])
def test_sines_are_those_of_every_host(tmp_path: Path, start: str) -> None:
    script = Script(f"{start}fld1; fsincos; mov ${DATA:#x},%rax; fstpt (%rax); fstpt 16(%rax)")
    _, (_, memory, _), path = plain_and_recorded(tmp_path, script, "x86_64")
    assert [memory[at : at + 10][::-1].hex() for at in (0, 16)] == ["3ffe8a51407da8345c92", "3ffed76aa47848677021"]
    check(path)


def test_a_hook_moves_the_program_counter(tmp_path: Path) -> None:
    skipped = CODE + 5 + 7

    def hooks(uc: Any) -> None:
        def code(uc: Any, address: int, size: int, _data: Any) -> None:
            if address == skipped and uc.reg_read(RCX) % 3 == 0:
                uc.reg_write(RIP, address + size)

        uc.hook_add(const.UC_HOOK_CODE, code)

    agree(tmp_path, Script(LOOP, hooks))


def test_a_hook_stops_and_the_script_goes_on(tmp_path: Path) -> None:
    def hooks(uc: Any) -> None:
        def code(uc: Any, address: int, _size: int, _data: Any) -> None:
            if address == CODE + 12 and uc.reg_read(RCX) == 9:
                uc.reg_write(RBX, 5)
                uc.emu_stop()

        uc.hook_add(const.UC_HOOK_CODE, code)

    agree(tmp_path, Script(LOOP, hooks, again=True))


def test_memory_hooks_make_a_device_in_ram(tmp_path: Path) -> None:
    def hooks(uc: Any) -> None:
        given = []

        def read(uc: Any, _access: int, address: int, size: int, _value: int, _data: Any) -> None:
            given.append(address)
            uc.mem_write(address, (len(given) * 1000).to_bytes(size, "little"))

        def write(uc: Any, _access: int, address: int, size: int, value: int, _data: Any) -> None:
            uc.mem_write(DATA + 0x400, value.to_bytes(8, "little"))
            if value == 7000:
                uc.emu_stop()

        uc.hook_add(const.UC_HOOK_MEM_READ, read, None, DATA + PAGE, DATA + PAGE + 8)
        uc.hook_add(const.UC_HOOK_MEM_WRITE, write, None, DATA + PAGE + 8, DATA + PAGE + 16)

    text = "mov $10,%ecx; 1: mov 0x201000,%eax; mov %eax,0x201008; add %eax,%ebx; loop 1b; nop"
    agree(tmp_path, Script(text, hooks, again=True))


def test_memory_hooks_leave_the_flags_alone(tmp_path: Path) -> None:

    def script(uc: Any) -> Any:
        code = assemble(
            "x86_64",
            "mov $5,%eax; cmp $0xf0000000,%eax; setc (%rdi); pushf; pop %rdx; adc $0,%ebx; mov $3,%ecx;"
            "cmp $0xf0000000,%eax; rep movsb; setc %bh; adc $0,%ebx; pushf; pop %rcx; nop",
        )
        given: list[tuple[Any, ...]] = []
        uc.mem_map(CODE, PAGE)
        uc.mem_map(DATA, 2 * PAGE)
        uc.mem_write(CODE, code)
        for name, value in (("RSP", DATA + PAGE), ("RSI", DATA), ("RDI", DATA + 0x100)):
            uc.reg_write(getattr(x86_const, f"UC_X86_REG_{name}"), value)

        def accessed(uc: Any, access: int, address: int, size: int, value: int, _data: Any) -> None:
            given.append((access, address, size, value))
            if len(given) in (1, 3, 6):
                uc.emu_stop()

        uc.hook_add(const.UC_HOOK_MEM_READ | const.UC_HOOK_MEM_WRITE, accessed)
        flags, pc = [], CODE
        while pc < CODE + len(code):
            uc.emu_start(pc, CODE + len(code))
            pc = uc.reg_read(RIP)
            flags.append((pc, uc.reg_read(x86_const.UC_X86_REG_EFLAGS)))
        return given, flags, [uc.reg_read(r) for r in (RAX, RBX, RCX, x86_const.UC_X86_REG_RDX)]

    expected, got, path = plain_and_recorded(tmp_path, script, "x86_64")
    assert got == expected
    check(path)


def test_a_hook_raises(tmp_path: Path) -> None:
    def hooks(uc: Any) -> None:
        def code(uc: Any, _address: int, _size: int, _data: Any) -> None:
            if uc.reg_read(RCX) == 11:
                uc.reg_write(RBX, 1 // (uc.reg_read(RCX) - 11))

        uc.hook_add(const.UC_HOOK_CODE, code)

    seen, _, _ = agree(tmp_path, Script(LOOP, hooks))
    assert "division" in seen[0]


def test_a_hook_is_deleted_and_another_added(tmp_path: Path) -> None:
    def hooks(uc: Any) -> None:
        handles: list[int] = []

        def second(uc: Any, _access: int, address: int, _size: int, value: int, _data: Any) -> None:
            uc.reg_write(RBX, address + value)

        def first(uc: Any, address: int, _size: int, _data: Any) -> None:
            if uc.reg_read(RCX) == 8 and handles:
                uc.hook_del(handles.pop())
                uc.hook_add(const.UC_HOOK_INTR, lambda *_: None)

        handles.append(uc.hook_add(const.UC_HOOK_CODE, first))
        uc.hook_add(const.UC_HOOK_MEM_WRITE, second, None, DATA, DATA + 40)

    agree(tmp_path, Script(LOOP, hooks))


def test_ports_and_cpuid(tmp_path: Path) -> None:
    def hooks(uc: Any) -> None:
        uc.hook_add(const.UC_HOOK_INSN, lambda _uc, port, size, _d: port * size, None, 1, 0, x86_const.UC_X86_INS_IN)
        sent: list[int] = []
        out = lambda uc, port, _size, value, _d: (sent.append(value), uc.reg_write(RCX, port + len(sent)))  # noqa: E731
        uc.hook_add(const.UC_HOOK_INSN, out, None, 1, 0, x86_const.UC_X86_INS_OUT)

        def cpuid(uc: Any, _data: Any) -> int:
            uc.reg_write(RBX, 0x1234)
            return 1

        uc.hook_add(const.UC_HOOK_INSN, cpuid, None, 1, 0, x86_const.UC_X86_INS_CPUID)
        uc.hook_add(const.UC_HOOK_INSN, lambda uc, _d: uc.reg_write(RAX, 42), None, 1, 0, x86_const.UC_X86_INS_SYSCALL)

    agree(
        tmp_path, Script("mov $3,%eax; in $0x60,%al; out %al,$0x61; cpuid; mov $9,%eax; syscall; inc %eax; nop", hooks)
    )


def test_memory_is_taken_away_and_protected(tmp_path: Path) -> None:
    def hooks(uc: Any) -> None:
        uc.mem_map(0x40_0000, 4 * PAGE)
        uc.mem_write(0x40_0000, b"x" * 4 * PAGE)

        def code(uc: Any, address: int, _size: int, _data: Any) -> None:
            count = uc.reg_read(RCX)
            if address == CODE + 12 and count == 15:
                uc.mem_unmap(0x40_1000, PAGE)
            elif address == CODE + 12 and count == 12:
                uc.mem_map(0x40_1000, PAGE, const.UC_PROT_READ)
                uc.mem_protect(0x40_2000, PAGE, const.UC_PROT_READ)
            elif address == CODE + 12 and count == 9:
                uc.reg_write(RBX, int.from_bytes(uc.mem_read(0x40_1000, 4), "little"))

        uc.hook_add(const.UC_HOOK_CODE, code)

    agree(tmp_path, Script(LOOP, hooks))


def test_context_and_blocks(tmp_path: Path) -> None:
    def hooks(uc: Any) -> None:
        saved: list[Any] = []

        def block(uc: Any, address: int, _size: int, _data: Any) -> None:
            if not saved:
                saved.append(uc.context_save())
            uc.reg_write(RBX, uc.reg_read(RBX) + 3)
            uc.mem_write(DATA + 0x800, uc.reg_read(RBX).to_bytes(4, "little"))

        uc.hook_add(const.UC_HOOK_BLOCK, block)

    agree(tmp_path, Script(LOOP, hooks, again=True))


def test_code_changes_itself(tmp_path: Path) -> None:
    # The immediate of the first move changes in each round.
    text = "mov $9,%ecx; 1: mov $1,%eax; add %eax,%ebx; incb 1b+1(%rip); loop 1b; nop"
    uc, script = new_uc("x86_64"), Script(text)
    with rrgdb.attach(uc, tmp_path / "r"):
        seen, _, pcs = script(uc)
    assert seen[1] == sum(range(1, 10))
    # Unicorn starts an instruction that changed its own block once more, and tells hooks of both attempts.
    check(tmp_path / "r", [pc for pc, _ in groupby(pcs)])


def test_a_hook_changes_code(tmp_path: Path) -> None:
    def hooks(uc: Any) -> None:
        def code(uc: Any, address: int, _size: int, _data: Any) -> None:
            if address == CODE + 5:
                uc.mem_write(CODE + 12, b"\xff\xc3")  # inc %ebx

        uc.hook_add(const.UC_HOOK_CODE, code)

    uc, script = new_uc("x86_64"), Script(LOOP, hooks)
    with rrgdb.attach(uc, tmp_path / "r"):
        seen, _, pcs = script(uc)
    assert seen[1] == 20
    check(tmp_path / "r", pcs)


def test_count_and_timeout(tmp_path: Path) -> None:
    uc = new_uc("x86_64")
    with rrgdb.attach(uc, tmp_path / "r") as session:
        uc.mem_map(CODE, PAGE)
        uc.mem_write(CODE, assemble("x86_64", "1: inc %eax; jmp 1b"))
        uc.emu_start(CODE, 0, count=7)
        assert session.icount == 7
        uc.emu_start(uc.reg_read(RIP), 0, timeout=50_000)
        assert session.icount > 7
        end = session.icount
    with rrgdb.open(tmp_path / "r") as recording:
        recording.seek(recording.end)
        assert (recording.icount, recording.registers["rax"]) == (end, (end + 1) // 2)


def test_a_stop_that_comes_between_two_slices_of_the_run_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uc = new_uc("x86_64")
    with rrgdb.attach(uc, tmp_path / "r") as session:
        uc.mem_map(CODE, PAGE)
        uc.mem_write(CODE, assemble("x86_64", "1: inc %eax; jmp 1b"))
        clear = session._timeline.clear_interrupt

        def stop_and_clear() -> None:
            if session._guest.running:
                session._guest.ask_stop()
            clear()

        monkeypatch.setattr(session._timeline, "clear_interrupt", stop_and_clear)
        uc.emu_start(CODE, 0, count=100_000)
        assert session.icount == 0


def test_another_thread_stops_the_run(tmp_path: Path) -> None:
    uc = new_uc("x86_64")
    with rrgdb.attach(uc, tmp_path / "r"):
        uc.mem_map(CODE, PAGE)
        uc.mem_write(CODE, assemble("x86_64", "1: inc %eax; jmp 1b"))
        began = threading.Event()
        uc.hook_add(const.UC_HOOK_CODE, lambda *_: began.set(), None, CODE, CODE)
        stopper = threading.Thread(target=lambda: (began.wait(), uc.emu_stop()))
        stopper.start()
        uc.emu_start(CODE, 0)
        stopper.join()
    with rrgdb.open(tmp_path / "r") as recording:
        assert recording.verify() > 0


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda uc: uc.mem_map_ptr(0x80_0000, PAGE, 7, 0), "mem_map_ptr: not while rrgdb records"),
        (lambda uc: uc.ctl_set_tlb_mode(1), "ctl_set_tlb_mode: not while rrgdb records"),
        (lambda uc: uc.ctl_exits_enabled(True), "ctl_exits_enabled: not while rrgdb records"),
        (lambda uc: uc.hook_add(const.UC_HOOK_TLB_FILL, lambda *_: True), "hook_add: what a hook of type"),
        (lambda uc: uc.mem_map(0x80_0000, 1 << 40), "rrgdb.attach(uc, memory="),
        (lambda uc: uc.mem_write(DEVICE, b"1"), "mem_write: 0x300000 belongs to a device"),
        (lambda uc: uc.hook_del(1000), "hook_del: there is no hook 1000"),
        (rrgdb.attach, "attached already"),
        (lambda uc: uc.ctl(99, 1, 0), "ctl: what control 99 does"),
    ],
)
def test_what_cannot_be_recorded_is_refused(act: Any, message: str, tmp_path: Path) -> None:
    uc = new_uc("x86_64")
    with rrgdb.attach(uc, tmp_path / "r"):
        uc.mmio_map(DEVICE, PAGE, lambda *_: 0, None, None, None)
        with pytest.raises(EngineError) as caught:
            act(uc)
    assert message in str(caught.value)


def test_nested_runs_are_refused(tmp_path: Path) -> None:
    uc = new_uc("x86_64")
    with rrgdb.attach(uc, tmp_path / "r"):
        uc.mem_map(CODE, PAGE)
        uc.hook_add(const.UC_HOOK_CODE, lambda uc, *_: uc.emu_start(CODE, CODE + 1))
        with pytest.raises(EngineError, match="not inside a hook"):
            uc.emu_start(CODE, CODE + 4)


def test_attach_wants_a_fresh_uc_of_a_known_family(tmp_path: Path) -> None:
    import unicorn  # noqa: PLC0415

    hooked = new_uc("x86_64")
    hooked.hook_add(const.UC_HOOK_CODE, lambda *_: None)
    with pytest.raises(EngineError, match="attach before hook_add"):
        rrgdb.attach(hooked, tmp_path / "a")
    with pytest.raises(EngineError, match="rrgdb can record"):
        rrgdb.attach(unicorn.Uc(const.UC_ARCH_M68K, const.UC_MODE_BIG_ENDIAN), tmp_path / "b")
    with pytest.raises(EngineError, match="expected a positive multiple"):
        rrgdb.attach(new_uc("x86_64"), tmp_path / "c", memory=100)
    assert not list(tmp_path.iterdir())


def test_what_was_there_before_is_recorded(tmp_path: Path) -> None:
    uc = new_uc("x86_64")
    code = assemble("x86_64", "mov 0x200000,%ebx; nop")
    uc.mem_map(CODE, PAGE)
    uc.mem_map(DATA, PAGE, const.UC_PROT_READ)
    uc.mem_write(CODE, code)
    uc.mem_write(DATA, b"before!!")
    uc.reg_write(RCX, 99)
    with rrgdb.attach(uc, tmp_path / "r"):
        uc.emu_start(CODE, CODE + len(code))
        assert uc.reg_read(RBX) == int.from_bytes(b"befo", "little")
    assert bytes(uc.mem_read(DATA, 8)) == b"before!!"
    with pytest.raises(EngineError, match="the recording is closed"):
        uc.reg_write(RBX, 1)
    check(tmp_path / "r")
    with rrgdb.open(tmp_path / "r") as recording:
        assert (recording.registers["rcx"], recording.memory(DATA, 8)) == (99, b"before!!")
