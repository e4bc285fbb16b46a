"""Flash: as QEMU's answers to commands, right and wrong ones."""

from __future__ import annotations

from random import Random

import pytest

from rrgdb.board.devices.memory.flash import (
    ARRAY,
    BUFFER,
    CLEAR,
    CONFIRM,
    ERASE,
    IDENTITY,
    LOCK,
    LOCK_CONFIRM,
    PROGRAM,
    PROGRAM_10,
    QUERY,
    READ_ARRAY,
    SECTOR,
    STATUS,
    Flash,
)
from rrgdb_tests.board.devices.qtest import Accesses, Bus, Exchange, Scenario, asked_again, check
from rrgdb_tests.board.fakes import FakeMachine, FakeMemory

BASE, BYTES = 0x04000000, 0x04000000
COMMANDS = (
    *(ARRAY, BUFFER, CLEAR, ERASE, IDENTITY, LOCK, PROGRAM, PROGRAM_10, QUERY, READ_ARRAY, STATUS),
    *(CONFIRM, LOCK_CONFIRM, 0x33),
)


def both(value: int) -> int:
    """The same word for both chips."""
    return value << 16 | value


def accesses(random: Random) -> Accesses:
    """Whole commands and parts of them, at few places, so that what was written is read again."""
    sectors = (BASE, BASE + SECTOR, BASE + BYTES - SECTOR)

    def anywhere() -> int:
        return random.choice(sectors) + 4 * random.choice((0, 1, 2, 0x10, 0x55, random.randrange(SECTOR // 4)))

    def write(address: int, value: int) -> str:
        return f"writel {address:#x} {value:#x}"

    for _ in range(700):
        at = anywhere()
        match random.randrange(8):
            case 0:
                yield write(at, both(random.choice(COMMANDS)))
            case 1:
                yield write(at, both(random.choice((PROGRAM, PROGRAM_10))))
                yield write(at, random.getrandbits(32))
            case 2:
                yield write(at, both(ERASE))
                yield write(at, both(CONFIRM))
            case 3:
                words = random.randrange(1, 5)
                yield write(at, both(BUFFER))
                yield write(at, both(words - 1))
                to = random.choice((at, at, anywhere()))
                for word in range(words):
                    yield write(to + 4 * word, random.getrandbits(32))
                yield write(at, both(random.choice((CONFIRM, CONFIRM, READ_ARRAY))))
            case 4:
                yield write(at, both(LOCK))
                yield write(at, both(random.choice((CONFIRM, LOCK_CONFIRM))))
            case 5:
                yield write(BASE, both(random.choice((QUERY, IDENTITY, STATUS))))
                for _ in range(4):
                    yield f"readl {BASE + 4 * random.randrange(0x60):#x}"
            case _:
                pass
        for _ in range(random.randrange(3)):
            yield f"readl {anywhere():#x}"
        if random.randrange(2):
            yield write(at, both(READ_ARRAY))
            yield f"readl {at:#x}"


SCENARIOS = (Scenario("flash", "qemu-system-aarch64", ("-M", "virt"), accesses),)


def agree(exchanges: list[Exchange]) -> None:
    machine = FakeMachine()
    machine.memory["flash1"] = FakeMemory(BYTES)
    check(exchanges, Bus(machine, {BASE: Flash("flash1", machine)}))


def test_it_answers_as_qemu_did() -> None:
    exchanges = SCENARIOS[0].recorded()
    assert len({exchange.value for exchange in exchanges}) > 50
    agree(exchanges)


@pytest.mark.qemu
def test_it_answers_as_the_qemu_that_is_here() -> None:
    agree(asked_again(SCENARIOS[0]))
