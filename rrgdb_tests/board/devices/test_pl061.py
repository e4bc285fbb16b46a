"""The PL061: as QEMU's answers, and the power key."""

from __future__ import annotations

from random import Random

import pytest

from rrgdb.board.devices.gpio.pl061 import PRESSED_NS, Pl061
from rrgdb_tests.board.devices.qtest import Accesses, Bus, Exchange, Scenario, asked_again, check
from rrgdb_tests.board.fakes import FakeMachine

BASE = 0x09030000
GIC, GPIO = "/machine/unattached/device[1]", "/machine/unattached/device[7]"
LINE = 7
REGISTERS = (*range(0x400, 0x424, 4), 0x41C, 0x500, 0x520, 0x524)
DIR, ISENSE, IBE, IEV, IM, RIS, MIS, IC = range(0x400, 0x420, 4)
KEY = 0x3FC


def accesses(random: Random) -> Accesses:
    for _ in range(1500):
        letter = random.choice("llllbw")
        size = {"b": 1, "w": 2, "l": 4}[letter]
        address = BASE + (random.choice((*REGISTERS, *REGISTERS, KEY, random.randrange(0x1000))) & -size)
        match random.randrange(5):
            case 0 | 1:
                yield f"set_irq_in {GPIO} unnamed-gpio-in {random.randrange(8)} {random.randrange(2)}"
            case 2 | 3:
                yield f"read{letter} {address:#x}"
            case _:
                value = random.choice((0, 0xFFFFFFFF, random.getrandbits(32), 1 << random.randrange(8)))
                yield f"write{letter} {address:#x} {value & (1 << 8 * size) - 1:#x}"


SCENARIOS = (Scenario("pl061", "qemu-system-aarch64", ("-M", "virt,gic-version=2"), accesses, intercept_in=GIC),)


class _Bus(Bus):
    """Its lines are the pins."""

    def __init__(self, machine: FakeMachine, gpio: Pl061) -> None:
        super().__init__(machine, {BASE: gpio})
        self._gpio = gpio

    def do(self, command: str) -> int | None:
        verb, *rest = command.split()
        if verb != "set_irq_in":
            return super().do(command)
        self._gpio.set_pin(int(rest[2]), rest[3] != "0")
        return None


def agree(exchanges: list[Exchange]) -> None:
    machine = FakeMachine()
    machine.lines["gpio"] = LINE
    check(exchanges, _Bus(machine, Pl061("gpio", machine)), lambda: {n for n, up in machine.levels.items() if up})


def test_it_answers_as_qemu_did() -> None:
    exchanges = SCENARIOS[0].recorded()
    assert {line for exchange in exchanges for line in exchange.lines} == {(LINE, 0), (LINE, 1)}
    agree(exchanges)


@pytest.mark.qemu
def test_it_answers_as_the_qemu_that_is_here() -> None:
    agree(asked_again(SCENARIOS[0]))


@pytest.fixture
def machine() -> FakeMachine:
    machine = FakeMachine()
    machine.lines["gpio"] = LINE
    return machine


def pass_time(machine: FakeMachine, ns: int) -> None:
    machine.now_ns += ns
    machine.timers.run_out(machine.now_ns, lambda: False)


def test_the_power_key_is_down_for_a_tenth_of_a_second(machine: FakeMachine) -> None:
    gpio = Pl061("gpio", machine)
    gpio.write(IBE, 4, 8)
    gpio.write(IM, 4, 8)
    machine.host.sinks["gpio"](b"\1")
    assert (gpio.read(KEY, 4), gpio.read(MIS, 4), machine.levels[LINE]) == (8, 8, True)
    gpio.write(IC, 4, 8)
    pass_time(machine, PRESSED_NS - 1)
    assert (gpio.read(KEY, 4), machine.levels[LINE]) == (8, False)
    pass_time(machine, 1)
    assert (gpio.read(KEY, 4), machine.levels[LINE]) == (0, True)


def test_pressed_again_the_key_stays_down(machine: FakeMachine) -> None:
    gpio = Pl061("gpio", machine)
    gpio.press()
    pass_time(machine, PRESSED_NS - 1)
    gpio.press()
    pass_time(machine, PRESSED_NS - 1)
    assert gpio.read(KEY, 4) == 8
    pass_time(machine, 1)
    assert gpio.read(KEY, 4) == 0


def test_an_output_does_not_hear_the_key(machine: FakeMachine) -> None:
    gpio = Pl061("gpio", machine)
    gpio.write(DIR, 4, 8)
    gpio.press()
    assert gpio.read(KEY, 4) == 0
