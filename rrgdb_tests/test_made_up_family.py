"""A new family is one module in ``arch``, one in ``engine.unicorn.families``, and a guest.

A made-up one, big-endian with six registers, is recorded and debugged, and nothing else of rrgdb knows of it.
"""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from elftools.elf.elffile import ELFFile

from rrgdb.arch import ARCHES, by_elf
from rrgdb.board.boards import BOARDS
from rrgdb.board.devices.power.debug_exit import ExitRegister
from rrgdb.board.devices.uart.ns16550 import Ns16550
from rrgdb.board.firmware.image import ImageError, load_image
from rrgdb.board.spec import MIB, BoardSpec, Placement
from rrgdb.engine.base import EngineError, Exit, ExitKind, Stops, Watch
from rrgdb.engine.memory import Ram
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb.engine.unicorn.families import FAMILIES
from rrgdb.opening import GuestOptions, Opened, record, replay
from rrgdb.target import Target
from rrgdb.timeline.export import export
from rrgdb.timeline.stop import Points
from rrgdb.timeline.verify import verify
from rrgdb.travel import Travel
from rrgdb_tests.agent.test_evaluate import assemble
from rrgdb_tests.arch.made_up import MADE_UP, REGISTERS
from rrgdb_tests.board.elf_builder import Elf, Seg
from rrgdb_tests.engine.unicorn.families.made_up import MADE_UP as ON_UNICORN
from rrgdb_tests.rsp.stub import Stub
from rrgdb_tests.rsp.test_server import serving

EM_PPC = 20
CODE, DATA, UART, EXIT = 0x100000, 0x180000, 0x10000000, 0x10100000
ROUNDS, STEP = 10, 0x103
ADDI, ADDIS, CMPWI, LWZ, STW, STB = 14, 15, 11, 32, 36, 38
SYSTEM_CALL, TRAP, TIME, NOTHING = 0x44000002, 0x7FE00008, 0x7C6C42E6, 0


def word(opcode: int, d: int, a: int, immediate: int) -> int:
    return opcode << 26 | d << 21 | a << 16 | immediate & 0xFFFF


PROGRAM = (
    word(ADDIS, 5, 0, DATA >> 16),
    word(ADDI, 4, 0, ROUNDS),
    word(ADDI, 3, 0, 0),
    word(ADDI, 3, 3, STEP),  # loop
    word(STW, 3, 5, 0),
    word(LWZ, 3, 5, 0),
    word(ADDI, 4, 4, -1),
    word(CMPWI, 0, 4, 0),
    0x4082FFEC,  # bne loop
    TIME,
    word(STW, 3, 5, 4),
    word(ADDIS, 4, 0, UART >> 16),
    word(ADDI, 3, 0, ord("!")),
    word(STB, 3, 4, 0),
    word(ADDIS, 4, 0, EXIT >> 16),
    word(ADDI, 3, 0, 7),
    word(STW, 3, 4, 0),
)
LOOP, STORE, BEHIND = CODE + 12, CODE + 16, CODE + 20
TIMED = 3 + 6 * ROUNDS
"""icount of the instruction that asks for the time"""
END = TIMED + 8
BOARD = BoardSpec(
    name="made-up-board",
    arches=("made-up",),
    description="a console and a way out",
    ram_base=CODE,
    default_ram=MIB,
    max_ram=16 * MIB,
    placements=(Placement(Ns16550, "serial0", UART, 0x1000), Placement(ExitRegister, "exit", EXIT, 0x1000)),
    serial="serial0",
)


def code(*words: int) -> bytes:
    return struct.pack(f">{len(words)}I", *words)


def elf(*words: int, encoding: int = 2) -> bytes:
    return Elf([Seg(CODE, code(*words))], CODE, EM_PPC, 32, encoding=encoding).build()


@pytest.fixture(autouse=True)
def _made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHES, MADE_UP.name, MADE_UP)
    monkeypatch.setitem(FAMILIES, MADE_UP.name, ON_UNICORN)
    monkeypatch.setitem(BOARDS, BOARD.name, BOARD)


class Debugger(Stub):
    """A debugger's session on an opened recording."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.said: list[str] = []
        super().__init__(Target(opened), self.said.append)

    def ask(self, packet: bytes) -> bytes:
        reply = self.handle(packet)
        assert reply is not None
        return reply

    def stop(self, packet: bytes) -> tuple[int, int]:
        """(icount, pc) where the packet has led."""
        assert self.ask(packet).startswith(b"T05")
        timeline = self.opened.timeline
        return timeline.icount, timeline.engine.pc

    def number(self, register: str) -> int:
        at = REGISTERS.index(register)
        return int.from_bytes(bytes.fromhex(self.ask(b"p%x" % at).decode()), "big")

    def memory(self, address: int) -> int:
        return int.from_bytes(bytes.fromhex(self.ask(b"m%x,4" % address).decode()), "big")


def recorded(tmp_path: Path, *words: int, run: bool = True, cpu: str | None = None) -> Opened:
    image = tmp_path / "guest.elf"
    image.write_bytes(elf(*(words or PROGRAM)))
    opened = record(tmp_path / "r", image, GuestOptions(cpu=cpu), interval=1e-8)
    if run:
        opened.timeline.run(Points({}))
    return opened


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with recorded(tmp_path) as opened:
        yield opened


def test_it_runs_to_its_end_and_asks_for_the_time(tmp_path: Path) -> None:
    output: list[bytes] = []
    with recorded(tmp_path, run=False) as opened:
        opened.door.set_output("serial0", output.append)
        opened.timeline.run(Points({}))
        opened.door.flush_output()
        assert output == [b"!"]
        _check_end(opened)


def _check_end(opened: Opened) -> None:
    timeline = opened.timeline
    assert (timeline.icount, timeline.end) == (END, END)
    assert opened.guest.end is not None
    assert (opened.guest.end.kind, opened.guest.end.value) == ("exit", 7)
    assert timeline.engine.read_memory(DATA, 8) == code(ROUNDS * STEP, TIMED)


def test_the_recording_replays_to_the_same_states(tmp_path: Path) -> None:
    with recorded(tmp_path, run=False) as opened:
        opened.timeline.run(Points({}), steps=20)
        Travel(Target(opened)).save_snapshot("middle")
        opened.timeline.run(Points({}))
    with replay(tmp_path / "r", writable=False) as again:
        verify(again.timeline)
        again.timeline.seek(TIMED)
        assert again.timeline.engine.read("r3") == ROUNDS * STEP
        Travel(Target(again)).load_snapshot("middle")
        assert (again.timeline.icount, again.timeline.engine.read("r3")) == (20, 3 * STEP)
        again.timeline.seek(TIMED)
        assert again.timeline.engine.read("r3") == ROUNDS * STEP


def test_registers_and_memory_have_the_byte_order_of_the_family(opened: Opened) -> None:
    gdb = Debugger(opened)
    opened.timeline.seek(5)
    expected = struct.pack(">4IQI", STEP, ROUNDS, DATA, CODE + MIB - 16, 0, BEHIND)
    assert gdb.ask(b"g") == expected.hex().encode()
    assert gdb.ask(b"p0") == b"%08x" % STEP
    assert gdb.ask(b"p4") == b"%016x" % 0
    assert gdb.ask(b"m%x,4" % DATA) == b"%08x" % STEP
    reply = gdb.ask(b"?")
    assert b"3:%08x;5:%08x;" % (CODE + MIB - 16, BEHIND) in reply


def test_the_description_numbers_the_registers_as_the_packet_does(opened: Opened) -> None:
    gdb = Debugger(opened)
    xml = gdb.ask(b"qXfer:features:read:target.xml:0,ffff")[1:].decode()
    found = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", xml)).findall(".//reg")
    assert [register.get("name") for register in found] == list(REGISTERS)
    bits = [int(register.get("bitsize", "0")) for register in found]
    assert sum(bits) // 4 == len(gdb.ask(b"g"))


def test_a_debugger_writes_registers_and_memory(opened: Opened) -> None:
    gdb = Debugger(opened)
    opened.timeline.seek(3)
    assert gdb.ask(b"P0=00010000") == b"OK"
    assert gdb.ask(b"M%x,4:00000002" % (DATA + 8)) == b"OK"
    assert (opened.timeline.engine.read("r3"), gdb.memory(DATA + 8)) == (0x10000, 2)
    gdb.stop(b"s")
    assert (gdb.number("r3"), gdb.number("pc")) == (0x10000 + STEP, STORE)
    values = struct.pack(">4IQI", 1, 2, 3, 4, 0x20000000, LOOP)
    assert gdb.ask(b"G" + values.hex().encode()) == b"OK"
    assert gdb.ask(b"g") == values.hex().encode()
    assert opened.timeline.engine.read("flags") == 0x20000000


def test_writes_at_the_present_are_recorded(tmp_path: Path) -> None:
    with recorded(tmp_path, run=False) as opened:
        gdb = Debugger(opened)
        gdb.stop(b"vCont;s")
        assert gdb.ask(b"P2=%08x" % (DATA + 0x100)) == b"OK"
        opened.timeline.run(Points({}))
    with replay(tmp_path / "r", writable=False) as again:
        # In the log as in every recording: what, number, value, all little-endian.
        assert [e.payload for e in again.timeline.log.inputs] == [
            struct.pack("<BI", 0, 2) + (DATA + 0x100).to_bytes(64, "little")
        ]
        verify(again.timeline)
        again.timeline.seek(again.timeline.end)
        assert again.timeline.engine.read_memory(DATA + 0x100, 4) == code(ROUNDS * STEP)


async def test_a_debugger_at_a_socket(opened: Opened) -> None:
    opened.timeline.seek(5)
    before = struct.pack(">4IQI", STEP, ROUNDS, DATA, CODE + MIB - 16, 0, BEHIND).hex().encode()
    async with serving(Target(opened)) as running:
        client = await running.connect()
        assert (await client.ask(b"?"))[:3] == b"T05"
        assert await client.ask(b"g") == before
        assert await client.ask(b"m%x,4" % DATA) == b"%08x" % STEP
        assert await client.ask(b"Z0,%x,4" % STORE) == b"OK"
        assert b"5:%08x;" % STORE in await client.ask(b"c")
        assert await client.ask(b"p0") == b"%08x" % (2 * STEP)
        assert await client.ask(b"P0=00000004") == b"OK"
        assert b"5:%08x;" % BEHIND in await client.ask(b"s")
        assert await client.ask(b"m%x,4" % DATA) == b"00000004"
        assert await client.ask(b"M%x,2:0102" % DATA) == b"OK"
        assert b"5:%08x;" % (BEHIND + 4) in await client.ask(b"s")
        assert await client.ask(b"p0") == b"01020004"


def test_steps_and_breakpoints_in_both_directions(opened: Opened) -> None:
    gdb = Debugger(opened)
    opened.timeline.seek(0)
    assert gdb.stop(b"s") == (1, CODE + 4)
    assert gdb.ask(b"Z0,%x,4" % STORE) == b"OK"
    assert gdb.stop(b"c") == (4, STORE)
    assert gdb.stop(b"c") == (10, STORE)
    assert gdb.number("r3") == 2 * STEP
    assert gdb.stop(b"bs") == (9, LOOP)
    assert gdb.stop(b"bc") == (4, STORE)
    opened.timeline.seek(TIMED + 1)
    assert gdb.number("r3") == TIMED
    assert gdb.stop(b"bs") == (TIMED, CODE + 36)
    assert gdb.number("r3") == ROUNDS * STEP
    assert gdb.stop(b"bc") == (4 + 6 * (ROUNDS - 1), STORE)


def test_watchpoints_in_both_directions(opened: Opened) -> None:
    gdb = Debugger(opened)
    opened.timeline.seek(0)
    # The byte that differs from one round to the next in every round is the last one.
    assert gdb.ask(b"Z2,%x,1" % (DATA + 3)) == b"OK"
    assert [gdb.stop(b"c") for _ in range(3)] == [(4 + 6 * n, STORE) for n in range(3)]
    assert gdb.memory(DATA) == 2 * STEP
    assert gdb.stop(b"bc") == (11, BEHIND)
    assert gdb.memory(DATA) == 2 * STEP
    assert gdb.ask(b"z2,%x,1" % (DATA + 3)) == b"OK"
    assert gdb.ask(b"Z3,%x,4" % DATA) == b"OK"
    assert gdb.stop(b"c") == (11, BEHIND)


@pytest.mark.parametrize(
    ("condition", "icount"),
    [
        (f"reg:0 {3 * STEP} equal end", 16),
        (f"{DATA} ref32 {2 * STEP} equal end", 16),
        (f"{DATA + 2} ref16 {3 * STEP} equal end", 22),
        (f"reg:5 {STORE} equal end", 4),
    ],
)
def test_conditions_read_in_the_byte_order_of_the_family(opened: Opened, condition: str, icount: int) -> None:
    gdb, expression = Debugger(opened), assemble(condition)
    opened.timeline.seek(0)
    assert gdb.ask(b"Z0,%x,4;X%x,%s" % (STORE, len(expression), expression.hex().encode())) == b"OK"
    assert gdb.stop(b"c") == (icount, STORE)


def test_history_is_disassembled(opened: Opened) -> None:
    opened.timeline.seek(5)
    (line,) = Travel(Target(opened)).history(1)
    assert line.text.split() == [code(PROGRAM[4]).hex(), "stw", "r3,", "0(r5)"]


def test_a_core_file_has_the_byte_order_of_the_family(opened: Opened, tmp_path: Path) -> None:
    opened.timeline.seek(5)
    export(opened.guest, tmp_path / "core", "core", elf(*PROGRAM))
    with (tmp_path / "core").open("rb") as file:
        core = ELFFile(file)
        assert (core.little_endian, core.elfclass, core["e_machine"]) == (False, 32, "EM_PPC")
        note, ram = core.iter_segments()
        content = note.data()
        assert struct.unpack_from(">III", content) == (5, len(content) - 20, 1)
        assert struct.unpack_from(">6I", content, 20 + 72) == (STEP, ROUNDS, DATA, CODE + MIB - 16, 0, BEHIND)
        assert ram["p_paddr"] == CODE
        assert ram.data()[DATA - CODE :][:4] == code(STEP)


def state(engine: UnicornEngine) -> str:
    return hashlib.sha256(engine.registers_digest() + engine.ram.read(CODE, MIB)).hexdigest()


def bare(*words: int, fast: bool) -> UnicornEngine:
    engine = UnicornEngine(MADE_UP, Ram(MIB), fast=fast)
    engine.map_ram(CODE, MIB)
    engine.write_memory(CODE, code(*words))
    MADE_UP.reset(engine, CODE, CODE + MIB - 16)
    return engine


def same_exit(one: Exit, other: Exit) -> None:
    assert (one.kind, one.trap, one.exception) == (other.kind, other.trap, other.exception)


def test_the_gears_agree_at_every_icount() -> None:
    slow = bare(*PROGRAM[:9], SYSTEM_CALL, fast=False)
    for icount in range(TIMED + 1):
        fast = bare(*PROGRAM[:9], SYSTEM_CALL, fast=True)
        same_exit(fast.run_until(icount), slow.run_until(icount))
        assert (fast.icount, fast.pc, state(fast)) == (slow.icount, slow.pc, state(slow))


@pytest.mark.parametrize("kind", ["w", "r", "a"])
def test_the_gears_agree_on_watches(kind: str) -> None:
    hits = []
    for fast in (False, True):
        engine = bare(*PROGRAM[:9], SYSTEM_CALL, fast=fast)
        engine.arm(Stops(watches=(Watch(DATA + 2, 2, kind),)))
        found = []
        while (exit_ := engine.run_until(TIMED)).kind is ExitKind.WATCHPOINT:
            found.append((engine.icount, exit_.hits))
        hits.append((found, state(engine)))
    assert hits[0] == hits[1]
    assert len(hits[0][0]) == ROUNDS * (2 if kind == "a" else 1)


@pytest.mark.parametrize("fast", [False, True])
def test_a_device_is_given_numbers_and_gives_them(fast: bool) -> None:
    engine = bare(word(ADDIS, 4, 0, UART >> 16), word(LWZ, 3, 4, 8), word(STW, 3, 4, 12), fast=fast)
    written: list[tuple[int, int, int]] = []
    engine.map_mmio(UART, 0x1000, lambda _offset, _size: 0x01020304, lambda *access: written.append(access))
    engine.run_until(3)
    assert engine.read("r3") == 0x01020304
    assert written == [(12, 4, 0x01020304)]


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    ("last", "signal"),
    [(SYSTEM_CALL, 12), (TRAP, 5), (NOTHING, 4), (word(LWZ, 3, 1, 0x100), 11), (word(STW, 3, 1, 0x100), 11)],
)
def test_exceptions_stand_at_their_instruction(last: int, signal: int, fast: bool) -> None:
    engine = bare(*PROGRAM[:9], last, fast=fast)
    exit_ = engine.run_until(1000)
    assert (exit_.kind, engine.icount, engine.pc) == (ExitKind.EXCEPTION, TIMED, CODE + 36)
    assert exit_.exception is not None
    assert exit_.exception.pc == CODE + 36
    assert MADE_UP.exception_signal(exit_.exception) == signal


def test_a_state_is_that_of_any_engine_of_the_family() -> None:
    one, other = bare(*PROGRAM, fast=True), bare(*PROGRAM, fast=True)
    one.run_until(20)
    other.write_memory(DATA, one.read_memory(DATA, 4))
    other.load(one.save())
    assert state(one) == state(other)
    assert one.save() == other.save()
    for engine in (one, other):
        engine.run_until(TIMED)
    assert (other.icount, state(other)) == (one.icount, state(one))


def saved() -> str:
    """Digest of what is saved at icount 20, where this process happens to have put everything."""
    ARCHES[MADE_UP.name], FAMILIES[MADE_UP.name] = MADE_UP, ON_UNICORN
    engine = bare(*PROGRAM, fast=True)
    engine.run_until(20)
    return hashlib.sha256(engine.save()).hexdigest()


def test_a_state_has_nothing_of_the_process_in_it() -> None:
    command = [sys.executable, "-c", f"from {__name__} import saved; print(saved())"]
    others = {subprocess.check_output(command, cwd=Path(__file__).parents[1], text=True).strip() for _ in range(2)}
    assert others == {saved()}


def test_its_models_are_those_that_the_user_may_choose(tmp_path: Path) -> None:
    assert tuple(ON_UNICORN.models) == MADE_UP.models
    with recorded(tmp_path, cpu="second") as opened:
        assert opened.timeline.end == END
    with pytest.raises(EngineError, match="--cpu third: made-up has first, second"):
        UnicornEngine(MADE_UP, Ram(MIB), "third")


def test_it_has_no_ports() -> None:
    with pytest.raises(EngineError, match="made-up has no I/O ports"):
        bare(fast=True).map_ports(0, 8, lambda _offset, _size: 0, lambda _offset, _size, _value: None)


def test_files_of_the_other_byte_order_are_not_of_the_family() -> None:
    assert by_elf("EM_PPC", 32, "big") is MADE_UP
    assert load_image(elf(*PROGRAM), "guest").arch is MADE_UP
    with pytest.raises(ImageError, match=r"supported \(little-endian\): .*; supported \(big-endian\): EM_PPC/32"):
        load_image(elf(*PROGRAM, encoding=1), "guest")
