"""16550 and PL011 against their data sheets: on boards that give them no interrupt line, and with one."""

from __future__ import annotations

from random import Random

import pytest

from rrgdb.board.boards import BOARDS, earlier
from rrgdb.board.devices.uart.line import LINE_BYTES
from rrgdb.board.devices.uart.ns16550 import InterruptingNs16550, Ns16550
from rrgdb.board.devices.uart.pl011 import FIFO_BYTES, InterruptingPl011, Pl011
from rrgdb_tests.board.fakes import FakeMachine

RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(8)
FCR = IIR


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine(line=None)


@pytest.fixture
def uart(machine: FakeMachine) -> Ns16550:
    return Ns16550("serial0", machine)


def feed(machine: FakeMachine, data: bytes) -> None:
    machine.host.sinks["serial0"](data)


def test_16550_power_on(uart: Ns16550) -> None:
    assert [uart.read(register, 1) for register in range(8)] == [0, 0, 1, 0, 8, 0x60, 0xB0, 0]


def test_16550_transmits(uart: Ns16550, machine: FakeMachine) -> None:
    for byte in b"hi\xff":
        uart.write(RBR, 1, byte)
        assert uart.read(LSR, 1) == 0x60
    assert machine.host.outputs == [("serial0", b"h"), ("serial0", b"i"), ("serial0", b"\xff")]


def test_16550_divisor_latch_hides_data_and_ier(uart: Ns16550, machine: FakeMachine) -> None:
    uart.write(IER, 1, 0x0F)
    uart.write(LCR, 1, 0x83)
    assert (uart.read(0, 1), uart.read(1, 1)) == (0x0C, 0)
    uart.write(0, 1, 0x34)
    uart.write(1, 1, 0x12)
    assert (uart.read(0, 1), uart.read(1, 1)) == (0x34, 0x12)
    assert machine.host.outputs == []
    uart.write(LCR, 1, 3)
    assert uart.read(IER, 1) == 0x0F
    assert uart.read(LCR, 1) == 3


def test_16550_scratch_and_masks(uart: Ns16550) -> None:
    uart.write(SCR, 1, 0xA5)
    uart.write(IER, 1, 0xFF)
    uart.write(MCR, 1, 0xEF)
    uart.write(LSR, 1, 0xFF)
    uart.write(MSR, 1, 0x0F)
    assert (uart.read(SCR, 1), uart.read(IER, 1), uart.read(MCR, 1)) == (0xA5, 0x0F, 0x0F)
    assert (uart.read(LSR, 1), uart.read(MSR, 1)) == (0x60, 0xB0)


@pytest.mark.parametrize("fifo", [0, 1])
def test_16550_receives_all_bytes_in_order(uart: Ns16550, machine: FakeMachine, fifo: int) -> None:
    uart.write(FCR, 1, fifo)
    sent = bytes(range(1, 101))
    feed(machine, sent[:50])
    feed(machine, sent[50:])
    received = bytearray()
    while uart.read(LSR, 1) & 1:
        received.append(uart.read(RBR, 1))
    assert bytes(received) == sent
    assert uart.read(LSR, 1) == 0x60
    assert uart.read(RBR, 1) == (0 if fifo else 100)


def test_16550_received_data_interrupt_follows_the_trigger_level(uart: Ns16550, machine: FakeMachine) -> None:
    feed(machine, b"x")
    assert uart.read(IIR, 1) == 0x01
    uart.write(IER, 1, 1)
    assert uart.read(IIR, 1) == 0x04
    uart.write(FCR, 1, 0x41)  # enables, hence clears; trigger level 4
    assert uart.read(IIR, 1) == 0xC1
    feed(machine, b"abc")
    assert uart.read(IIR, 1) == 0xCC
    feed(machine, b"d")
    assert uart.read(IIR, 1) == 0xC4
    assert uart.read(RBR, 1) == ord("a")
    assert uart.read(IIR, 1) == 0xCC


def test_16550_transmitter_interrupt_is_cleared_by_iir(uart: Ns16550) -> None:
    uart.write(IER, 1, 2)
    assert uart.read(IIR, 1) == 0x02
    assert uart.read(IIR, 1) == 0x01
    uart.write(RBR, 1, 0x41)
    assert uart.read(IIR, 1) == 0x02
    uart.write(RBR, 1, 0x41)
    uart.write(IER, 1, 0)
    assert uart.read(IIR, 1) == 0x01


def test_16550_fifo_reset_drops_what_it_held(uart: Ns16550, machine: FakeMachine) -> None:
    uart.write(FCR, 1, 1)
    feed(machine, bytes(range(20)))
    uart.write(FCR, 1, 3)
    assert uart.read(RBR, 1) == 16


def test_16550_overrun(uart: Ns16550, machine: FakeMachine) -> None:
    uart.write(IER, 1, 5)
    feed(machine, bytes(LINE_BYTES + 1))
    assert uart.read(LSR, 1) == 0x61
    feed(machine, b"a")
    assert uart.read(IIR, 1) == 0x06
    assert uart.read(LSR, 1) == 0x63
    assert uart.read(LSR, 1) == 0x61


def test_16550_loopback(uart: Ns16550, machine: FakeMachine) -> None:
    for value, status in ((0x10, 0), (0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80)):
        uart.write(MCR, 1, value)
        assert uart.read(MSR, 1) == status
    uart.write(RBR, 1, 0x5A)
    feed(machine, b"z")
    assert machine.host.outputs == []
    assert uart.read(RBR, 1) == 0x5A
    assert uart.read(LSR, 1) == 0x60
    uart.write(RBR, 1, 1)
    uart.write(RBR, 1, 2)
    assert uart.read(LSR, 1) == 0x63
    assert uart.read(RBR, 1) == 2
    uart.write(MCR, 1, 0)
    assert uart.read(RBR, 1) == ord("z")


def test_16550_ignores_what_it_has_not(uart: Ns16550) -> None:
    before = uart.save()
    uart.write(8, 1, 0xFF)
    assert uart.read(8, 1) == 0
    assert uart.save() == before


@pytest.fixture
def pl(machine: FakeMachine) -> Pl011:
    return Pl011("serial0", machine)


def test_pl011_power_on(pl: Pl011) -> None:
    expected = {0x18: 0x90, 0x30: 0x300, 0x34: 0x12, 0x2C: 0, 0x38: 0, 0x3C: 0, 0x40: 0, 0x04: 0, 0x24: 0, 0x28: 0}
    assert {offset: pl.read(offset, 4) for offset in expected} == expected


def test_pl011_identifies_itself(pl: Pl011) -> None:
    identity = [pl.read(offset, 4) for offset in range(0xFE0, 0x1000, 4)]
    assert identity == [0x11, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1]


def test_pl011_transmits_and_raises_tx(pl: Pl011, machine: FakeMachine) -> None:
    pl.write(0, 4, 0x141)
    assert machine.host.outputs == [("serial0", b"A")]
    assert pl.read(0x3C, 4) == 0x20
    assert pl.read(0x40, 4) == 0
    pl.write(0x38, 4, 0x20)
    assert pl.read(0x40, 4) == 0x20
    pl.write(0x44, 4, 0x20)
    assert pl.read(0x3C, 4) == 0


@pytest.mark.parametrize("lcr", [0x60, 0x70])
def test_pl011_receives_all_bytes_in_order(pl: Pl011, machine: FakeMachine, lcr: int) -> None:
    pl.write(0x2C, 4, lcr)
    sent = bytes(range(1, 101))
    feed(machine, sent)
    assert pl.read(0x18, 4) == 0xC0
    assert pl.read(0x3C, 4) & 0x10
    received = bytearray()
    while not pl.read(0x18, 4) & 0x10:
        received.append(pl.read(0, 4))
    assert bytes(received) == sent
    assert pl.read(0x3C, 4) & 0x10 == 0
    assert pl.read(0x18, 4) == 0x90


def test_pl011_fifo_full_flag(pl: Pl011, machine: FakeMachine) -> None:
    pl.write(0x2C, 4, 0x10)
    feed(machine, bytes(15))
    assert pl.read(0x18, 4) == 0x80
    feed(machine, b"x")
    assert pl.read(0x18, 4) == 0xC0


def test_pl011_stores_what_the_manual_has_bits_for(pl: Pl011) -> None:
    for offset, mask in ((0x20, 0xFF), (0x24, 0xFFFF), (0x28, 0x3F), (0x2C, 0xFF), (0x34, 0x3F), (0x38, 0x7FF)):
        pl.write(offset, 4, 0xFFFFFFFF)
        assert pl.read(offset, 4) == mask
    before = pl.save()
    pl.write(0x18, 4, 0xFFFFFFFF)
    pl.write(0xFE0, 4, 0xFFFFFFFF)
    assert pl.save() == before


def test_pl011_overrun(pl: Pl011, machine: FakeMachine) -> None:
    feed(machine, bytes(LINE_BYTES + 1))
    assert pl.read(0x04, 4) == 0
    feed(machine, b"a")
    assert pl.read(0x04, 4) == 8
    assert pl.read(0x3C, 4) & 0x400
    pl.write(0x04, 4, 0)
    assert pl.read(0x04, 4) == 0


@pytest.mark.parametrize("line", [None, 3])
@pytest.mark.parametrize("kind", [Ns16550, Pl011])
def test_what_is_taken_has_been_read(kind: type[Ns16550 | Pl011], line: int | None) -> None:
    """By whoever takes it, as by the guest: the same bytes, and the same state behind it."""
    random = Random(kind.__name__)
    control, modes, data = (FCR, (0, 1, 7), RBR) if kind is Ns16550 else (0x2C, (0, 0x10), 0)
    taken = 0
    for _ in range(300):
        pair = [kind("serial0", FakeMachine(line=line)) for _ in range(2)]
        for _ in range(random.randint(1, 4)):
            byte, reads = random.randbytes(random.choice((0, 1, 3, 40))), random.choice((0, 0, 1, 20))
            mode, clear = random.choice(modes), random.random() < 0.3
            for device in pair:
                device.write(control, 4, mode)
                device.receive(byte)
                for _ in range(reads):
                    device.read(data, 4)
                if clear and kind is Pl011:
                    device.write(0x44, 4, 0x7FF)
        one, other = pair
        count = random.choice((0, 1, 2, 16, 100))
        found = one.peek(count)
        assert one.save() == other.save(), "looking changes nothing"
        one.take(len(found))
        assert found == bytes(other.read(data, 4) for _ in found)
        assert one.save() == other.save()
        taken += len(found)
        assert len(found) == count or one.peek(1) == b""
    assert taken > 1000


def test_16550_receives_nothing_for_others_in_loopback(uart: Ns16550, machine: FakeMachine) -> None:
    feed(machine, b"ab")
    uart.write(MCR, 1, 0x10)
    assert uart.peek(2) == b""
    uart.write(MCR, 1, 0)
    assert uart.peek(2) == b"ab"


# -- with an interrupt line

LINE = 10
DEFAULT_CHARACTER_NS = 1_041_660


@pytest.fixture
def lined() -> FakeMachine:
    return FakeMachine(line=LINE)


def pass_time(machine: FakeMachine, ns: int) -> None:
    machine.now_ns += ns
    machine.timers.run_out(machine.now_ns, lambda: False)


def test_a_board_without_a_line_has_the_uarts_of_before() -> None:
    known = {Ns16550: False, Pl011: False, InterruptingNs16550: True, InterruptingPl011: True}
    found = {
        (place.factory, place.line is not None)
        for board in (*earlier(), *BOARDS.values())
        for place in board.placements
        if place.factory in known
    }
    assert found == set(known.items())


def test_16550_reset_keeps_what_waits_on_the_line(lined: FakeMachine) -> None:
    uart = InterruptingNs16550("serial0", lined)
    uart.write(FCR, 1, 0xC1)
    uart.write(IER, 1, 1)
    feed(lined, bytes(range(40)))
    uart.reset()
    assert (uart.read(LSR, 1) & 1, lined.levels[LINE]) == (1, False)
    assert [uart.read(RBR, 1) for _ in range(27)] == [*range(14, 40), 39]
    assert uart.read(LSR, 1) & 1 == 0


def test_16550_tells_of_few_bytes_after_the_time_of_four_characters(lined: FakeMachine) -> None:
    uart = InterruptingNs16550("serial0", lined)
    uart.write(FCR, 1, 0xC1)
    uart.write(IER, 1, 1)
    feed(lined, b"abc")
    pass_time(lined, 4 * DEFAULT_CHARACTER_NS - 1)
    assert (uart.read(IIR, 1), lined.levels[LINE]) == (0xC1, False)
    pass_time(lined, 1)
    assert (uart.read(IIR, 1), uart.read(LSR, 1), lined.levels[LINE]) == (0xCC, 0x61, True)
    assert (uart.read(RBR, 1), uart.read(IIR, 1), lined.levels[LINE]) == (ord("a"), 0xC1, False)
    pass_time(lined, 4 * DEFAULT_CHARACTER_NS)
    assert (uart.read(IIR, 1), lined.levels[LINE]) == (0xCC, True)
    assert bytes(uart.read(RBR, 1) for _ in range(2)) == b"bc"
    pass_time(lined, 100 * DEFAULT_CHARACTER_NS)
    assert (uart.read(IIR, 1), lined.levels[LINE]) == (0xC1, False)


@pytest.mark.parametrize(
    ("lcr", "divisor", "character_ns"),
    # bits * (10^9 / (399193 / divisor)) in single precision
    [(0x03, 12, 300_606), (0x1F, 1, 30_060), (0x00, 0, 2_000_000), (0x03, 0xFFFF, 1_641_687_040)],
)
def test_16550_characters_take_the_time_of_their_bits(
    lined: FakeMachine, lcr: int, divisor: int, character_ns: int
) -> None:
    uart = InterruptingNs16550("serial0", lined)
    uart.write(LCR, 1, 0x80)
    uart.write(0, 1, divisor & 0xFF)
    uart.write(1, 1, divisor >> 8)
    uart.write(LCR, 1, lcr)
    uart.write(FCR, 1, 0xC1)
    uart.write(IER, 1, 1)
    feed(lined, b"a")
    pass_time(lined, 4 * character_ns - 1)
    assert not lined.levels[LINE]
    pass_time(lined, 1)
    assert lined.levels[LINE]


def test_16550_line_follows_each_cause(lined: FakeMachine) -> None:
    uart = InterruptingNs16550("serial0", lined)
    uart.write(IER, 1, 2)
    assert lined.levels[LINE], "the transmitter is empty"
    assert uart.read(IIR, 1) == 2
    assert not lined.levels[LINE]
    uart.write(RBR, 1, 0x41)
    assert lined.levels[LINE]
    uart.write(IER, 1, 1)
    assert not lined.levels[LINE]
    feed(lined, b"x")
    assert lined.levels[LINE]
    uart.read(RBR, 1)
    assert not lined.levels[LINE]
    feed(lined, b"y")
    uart.take(1)
    assert not lined.levels[LINE]
    feed(lined, b"z")
    uart.reset()
    assert not lined.levels[LINE]


def test_16550_fills_its_fifo_up_to_the_trigger_level(lined: FakeMachine) -> None:
    uart = InterruptingNs16550("serial0", lined)
    uart.write(FCR, 1, 0x81)
    feed(lined, bytes(range(1, 31)))
    uart.write(FCR, 1, 0x83)
    assert uart.read(RBR, 1) == 9
    uart.write(FCR, 1, 0x01)
    uart.write(FCR, 1, 0x03)
    assert uart.read(RBR, 1) == 10 + 16, "it held more than the new level, so all of it was filled"


@pytest.mark.parametrize(
    ("field", "value"),
    [("character_ns", 5), ("timed_out", 1)],
)
def test_16550_refuses_times_that_cannot_be(lined: FakeMachine, field: str, value: int) -> None:
    uart = InterruptingNs16550("serial0", lined)
    setattr(uart, field, value)
    with pytest.raises(ValueError, match="serial0: "):
        uart.load(uart.save())


def test_a_time_out_of_a_damaged_state_is_harmless(lined: FakeMachine) -> None:
    """The timers are saved by the machine: one may be set though there is nothing to tell of."""
    uart = InterruptingNs16550("serial0", lined)
    uart.write(FCR, 1, 0xC1)
    uart.write(IER, 1, 1)
    feed(lined, b"a")
    uart.load(InterruptingNs16550("serial0", FakeMachine(line=LINE)).save())
    pass_time(lined, 1 << 40)
    uart.load(uart.save())
    assert uart.read(IIR, 1) == 1


def test_pl011_line_follows_status_and_mask(lined: FakeMachine) -> None:
    pl = InterruptingPl011("serial0", lined)
    pl.write(0x2C, 4, 0x10)
    pl.write(0x38, 4, 0x10)
    feed(lined, b"ab")
    assert (pl.read(0x3C, 4), lined.levels[LINE]) == (0x10, True)
    pl.read(0, 4)
    assert lined.levels[LINE]
    pl.read(0, 4)
    assert (pl.read(0x3C, 4), lined.levels[LINE]) == (0, False)
    feed(lined, b"c")
    pl.write(0x44, 4, 0x10)
    assert (pl.read(0x3C, 4), lined.levels[LINE]) == (0, False)
    pl.write(0, 4, 0x41)
    pl.write(0x38, 4, 0x20)
    assert lined.levels[LINE]
    feed(lined, bytes(LINE_BYTES + FIFO_BYTES))
    pl.write(0x38, 4, 0x400)
    assert lined.levels[LINE], "bytes were lost"


def test_pl011_refuses_more_than_its_fifo_holds() -> None:
    for name, value in (("held", 17), ("held", 2), ("ring", bytearray(15))):
        pl = InterruptingPl011("serial0", FakeMachine(line=LINE))
        setattr(pl, name, value)
        with pytest.raises(ValueError, match="serial0: "):
            pl.load(pl.save())
