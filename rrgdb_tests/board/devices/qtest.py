"""QEMU's devices as the judge of ours: register accesses by its ``qtest`` protocol, recorded and replayed.

A ``Scenario`` is a machine of QEMU's and a generator of qtest commands that sees each answer::

    def accesses(random: Random) -> Accesses:
        yield f"set_irq_in {PLIC} unnamed-gpio-in 10 1"
        number = yield "readl 0xc200004"
        ...

    PLIC_SCENARIO = Scenario("plic", "qemu-system-riscv64", ("-M", "virt"), accesses, intercept=PLIC)

in ``SCENARIOS`` of a test module. ``python -m rrgdb_tests.board.devices.qtest rrgdb_tests.board.devices.test_plic``
asks QEMU and stores the answers in ``recorded/plic.xz``. A test replays them (``check``) on a ``Bus``, which has our
devices at QEMU's addresses; another one, marked ``qemu``, asks QEMU again with another seed (``Scenario.ask``).

The guest never runs (``-S``), so virtual time stands at 0 and nobody but the commands touches a device. With ``awake``
it does run: it should wait, and time be of no account. Paths of QEMU's devices are shown by ``info qom-tree`` in its
monitor. ``intercept`` names a device whose unnamed outputs are listened to, ``intercept_in`` one of which it is the
inputs. QEMU 7.2 cannot listen to outputs that have names (those of ``sysbus`` devices): listen to the inputs of the
interrupt controller instead. ``-serial`` and the like in ``options`` come before the harness's own.

With ``settle``, a read without effects, the machine has a character device ``input`` besides (``-serial
chardev:input``), and a further command: ``input 616263`` sends it these bytes. Behind each command QEMU gets the
time to take what waits there, by that read.
"""

from __future__ import annotations

import lzma
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import IO

import pytest

from rrgdb.board.device import Device
from rrgdb_tests.board.fakes import FakeMachine

RECORDED = Path(__file__).with_name("recorded")
SEED = 1
"""of what is recorded"""
SIZES = {"b": 1, "w": 2, "l": 4, "q": 8}
TIMEOUT_S = 60

Accesses = Generator[str, int | None, None]
"""yields qtest commands, and gets the value of each one that reads"""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One command and its answer. ``lines``: (number, level) of each intercepted line that changed, as it is after."""

    command: str
    value: int | None
    lines: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        changes = " ".join(f"{number}:{level}" for number, level in self.lines)
        return f"{self.command};{'' if self.value is None else f'{self.value:x}'};{changes}"

    @classmethod
    def parse(cls, line: str) -> Exchange:
        command, value, changes = line.split(";")
        pairs = (change.split(":") for change in changes.split())
        return cls(
            command, int(value, 16) if value else None, tuple((int(number), int(level)) for number, level in pairs)
        )


class Qemu:
    """A QEMU that stands still, and its qtest connection."""

    def __init__(self, process: subprocess.Popen[str], line: socket.socket, settle: Sequence[str]) -> None:
        self._line = line
        self._settle = settle
        assert process.stdin is not None
        assert process.stdout is not None
        self._to: IO[str] = process.stdin
        self._from: IO[str] = process.stdout

    def ask(self, command: str) -> Exchange:
        """RuntimeError if QEMU refuses the command or ends."""
        lines: dict[int, int] = {}
        if command.startswith("input "):
            self._line.sendall(bytes.fromhex(command.split()[1]))
            value = None
        else:
            value = self._ask(command, lines)
        for each in self._settle:
            self._ask(each, lines)
        return Exchange(command, value, tuple(sorted(lines.items())))

    def _ask(self, command: str, lines: dict[int, int]) -> int | None:
        """The value that is read; levels that change go to ``lines``."""
        self._to.write(command + "\n")
        self._to.flush()
        for answer in self._from:
            word, *rest = answer.split()
            if word == "IRQ":
                lines[int(rest[1])] = int(rest[0] == "raise")
            elif word == "OK":
                return int(rest[0], 16) if rest else None
            else:
                raise RuntimeError(f"{command}: {answer}")
        raise RuntimeError(f"{command}: QEMU ended")


@contextmanager
def qemu(binary: str, options: Sequence[str], settle: Sequence[str] = (), *, awake: bool = False) -> Iterator[Qemu]:
    """``binary`` started with ``options``, stopped or ``awake``; it is killed behind."""
    silent = [*(() if awake else ("-S",)), "-display", "none", "-serial", "null", "-monitor", "none"]
    spoken = ["-qtest", "stdio", "-qtest-log", "/dev/null"]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = ["-chardev", f"socket,id=input,fd={theirs.fileno()}"] if settle else []
        process = subprocess.Popen(
            ["timeout", str(TIMEOUT_S), binary, *line, *options, *silent, *spoken],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            text=True,
        )
        try:
            yield Qemu(process, ours, settle)
        finally:
            process.terminate()
            process.communicate()


@dataclass(frozen=True)
class Scenario:
    name: str
    binary: str
    """of QEMU: ``qemu-system-riscv64``"""
    options: tuple[str, ...]
    accesses: Callable[[Random], Accesses]
    intercept: str = ""
    """QOM path of the device whose unnamed outputs are part of the answers"""
    intercept_in: str = ""
    """the same of inputs"""
    settle: tuple[str, ...] = ()
    """asked behind each command: a round of QEMU's main loop each, in which a device takes a byte at least"""

    awake: bool = False
    """for devices that do nothing while the machine is stopped"""

    @property
    def is_there(self) -> bool:
        return shutil.which(self.binary) is not None

    def ask(self, seed: int) -> list[Exchange]:
        """QEMU's answers to the accesses that ``seed`` gives."""
        exchanges: list[Exchange] = []
        with qemu(self.binary, self.options, self.settle, awake=self.awake) as judge:
            for way, path in (("out", self.intercept), ("in", self.intercept_in)):
                if path:
                    judge.ask(f"irq_intercept_{way} {path}")
            accesses = self.accesses(Random(f"{self.name} {seed}"))
            try:
                command = next(accesses)
                while True:
                    exchanges.append(judge.ask(command))
                    command = accesses.send(exchanges[-1].value)
            except StopIteration:
                return exchanges

    def recorded(self) -> list[Exchange]:
        with lzma.open(RECORDED / f"{self.name}.xz", "rt") as file:
            return [Exchange.parse(line.rstrip("\n")) for line in file]

    def record(self) -> None:
        text = "".join(f"{exchange}\n" for exchange in self.ask(SEED))
        RECORDED.mkdir(exist_ok=True)
        (RECORDED / f"{self.name}.xz").write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def many_recorded(scenario: Scenario) -> list[Exchange]:
    """What is recorded: enough of it, lines that change among it."""
    exchanges = scenario.recorded()
    assert len(exchanges) >= 2500
    assert any(exchange.lines for exchange in exchanges)
    return exchanges


def asked_again(scenario: Scenario) -> list[Exchange]:
    """Answers to other accesses of the QEMU that is here; without it the test is skipped."""
    if not scenario.is_there:
        pytest.skip(f"{scenario.binary} is not installed")
    return scenario.ask(SEED + 1)


class Bus:
    """Our devices at addresses; does qtest commands on them."""

    def __init__(
        self, machine: FakeMachine, devices: Mapping[int, Device], ports: Mapping[int, Device] = MappingProxyType({})
    ) -> None:
        """``devices``, ``ports``: by the address that they begin at. ``set_irq_in`` goes to the machine's lines, and
        ``input`` to whatever device receives."""
        self.machine = machine
        self.devices = devices
        self.ports = ports

    def _find(self, devices: Mapping[int, Device], address: int) -> tuple[Device, int]:
        base = max(base for base in devices if base <= address)
        return devices[base], address - base

    def do(self, command: str) -> int | None:
        """The value of a read; None for the rest."""
        verb, *rest = command.split()
        if verb == "set_irq_in":
            self.machine.irq(int(rest[2]), rest[3] != "0")
            return None
        if verb == "input":
            for sink in self.machine.host.sinks.values():
                sink(bytes.fromhex(rest[0]))
            return None
        numbers = [int(each, 0) for each in rest]
        size = SIZES[verb[-1]]
        device, offset = self._find(self.ports if verb[:-1] in ("in", "out") else self.devices, numbers[0])
        parts, mask = range(0, size, 4), (1 << 8 * min(size, 4)) - 1
        if verb[:-1] in ("read", "in"):
            return sum((device.read(offset + at, min(size, 4)) & mask) << 8 * at for at in parts)
        for at in parts:
            device.write(offset + at, min(size, 4), numbers[1] >> 8 * at & mask)
        return None


def check(exchanges: Iterable[Exchange], bus: Bus, raised: Callable[[], set[int]] = set) -> None:
    """Assert that our devices answer as QEMU did. ``raised()``: the intercepted lines that are high now, by QEMU's
    numbers; all are low at first."""
    high: set[int] = set()
    for at, exchange in enumerate(exchanges):
        high |= {number for number, level in exchange.lines if level}
        high -= {number for number, level in exchange.lines if not level}
        ours = (bus.do(exchange.command), raised())
        assert ours == (exchange.value, high), f"access {at}: {exchange}"


def main(modules: Sequence[str]) -> None:
    """Record the scenario of each test module anew."""
    for name in modules:
        scenarios: Sequence[Scenario] = import_module(name).SCENARIOS
        for scenario in scenarios:
            scenario.record()
            print(f"{scenario.name}: {(RECORDED / f'{scenario.name}.xz').stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
