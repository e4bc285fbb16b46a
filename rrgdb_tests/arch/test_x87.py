"""x87's transcendental instructions and remainders: every bit, flag and tag."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from rrgdb.arch import _x87, x87
from rrgdb.arch.base import IllegalInstruction
from rrgdb_tests.arch.cpus import FakeCpu
from rrgdb_tests.arch.x87_vectors import ROUNDED, SPECIAL

NAMES = ("f2xm1", "fyl2x", "fptan", "fpatan", "fprem1", "fprem", "fyl2xp1", "fsincos", "fsin", "fcos")
OPCODES = dict(zip(NAMES, (0xF0, 0xF1, 0xF2, 0xF3, 0xF5, 0xF8, 0xF9, 0xFB, 0xFE, 0xFF), strict=True))
ONE = 0x3FFF8000000000000000
C0, C1, C2, C3 = 1 << 8, 1 << 9, 1 << 10, 1 << 14


def _cpu(numbers: list[int], control: int = 0x37F) -> FakeCpu:
    """A stack that holds ``numbers``, st0 first."""
    top = -len(numbers) % 8
    tags = sum(3 << 2 * n for n in range(8) if (n - top) % 8 >= len(numbers))
    registers = {f"st{n}": value for n, value in enumerate(numbers)}
    return FakeCpu(registers={"cr0": 0x31, "fctrl": control, "fstat": top << 11, "ftag": tags, **registers})


class Stack(FakeCpu):
    """st0 to st7 are found by the top, as in the engine."""

    def __init__(self, numbers: list[int], control: int = 0x37F) -> None:
        cpu = _cpu(numbers, control)
        top = cpu.registers["fstat"] >> 11
        physical = {f"physical{(top + n) % 8}": value for n, value in enumerate(numbers)}
        super().__init__(registers=cpu.registers | physical)

    def _name(self, name: str) -> str:
        if name[:2] != "st" or not name[2:].isdigit():
            return name
        return f"physical{((self.registers['fstat'] >> 11) + int(name[2:])) % 8}"

    def read(self, name: str) -> int:
        return super().read(self._name(name))

    def write(self, name: str, value: int) -> None:
        super().write(self._name(name), value)

    def number(self, n: int) -> str:
        """st``n`` in hexadecimal, - where it is empty."""
        tag = self.registers["ftag"] >> 2 * (((self.registers["fstat"] >> 11) + n) % 8) & 3
        return "-" if tag == 3 else f"{self.read(f'st{n}'):020x}"


def _rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.split("\n") if line]


@pytest.mark.parametrize(("name", "rounding", "st1", "st0", "result"), _rows(ROUNDED))
def test_results_are_rounded_from_the_exact_value(name: str, rounding: str, st1: str, st0: str, result: str) -> None:
    numbers = [int(st0, 16)] + ([] if st1 == "-" else [int(st1, 16)])
    cpu = Stack(numbers, 0x37F | int(rounding) << 10)
    x87.execute(cpu, OPCODES[name])
    assert cpu.number(1 if name == "fptan" else 0) == result
    assert cpu.registers["fstat"] & 0xFF == 0x20


@pytest.mark.parametrize(("name", "control", "depth", "st1", "st0", "status", "first", "second"), _rows(SPECIAL))
def test_special_operands(
    name: str, control: str, depth: str, st1: str, st0: str, status: str, first: str, second: str
) -> None:
    numbers = [int(st0, 16), int(st1, 16), *[0] * 6][: int(depth)]
    cpu = Stack(numbers, int(control, 16))
    x87.execute(cpu, OPCODES[name])
    assert (f"{cpu.registers['fstat']:04x}", cpu.number(0), cpu.number(1)) == (status, first, second)


def _value(bits: int) -> Fraction:
    exponent = (bits >> 64 & 0x7FFF or 1) - 16383 - 63
    return (-1) ** (bits >> 79) * (bits & (1 << 64) - 1) * Fraction(2) ** exponent


def _random(rng: random.Random, low: int, high: int) -> int:
    mantissa = 1 << 63 | rng.getrandbits(63) >> rng.choice((0, 0, 40)) << rng.choice((0, 40)) & (1 << 63) - 1
    return rng.getrandbits(1) << 79 | rng.randint(low, high) + 16383 << 64 | mantissa


@pytest.mark.parametrize("name", ["fprem", "fprem1"])
def test_remainders_are_exact(name: str) -> None:
    rng = random.Random(name)
    for _ in range(300):
        x, y = _random(rng, -40, 200), _random(rng, -40, 40)
        cpu = Stack([x, y])
        while True:
            x87.execute(cpu, OPCODES[name])
            if not cpu.registers["fstat"] & C2:
                break
        quotient = _value(x) / _value(y)
        integer = round(quotient) if name == "fprem1" else int(quotient)
        rest = _value(x) - _value(y) * integer
        status = cpu.registers["fstat"]
        assert _value(int(cpu.number(0), 16)) == rest
        assert bool(int(cpu.number(0), 16) >> 79) == (rest < 0 if rest else x >> 79 == 1)
        low = (bool(status & C0), bool(status & C3), bool(status & C1))
        assert low == tuple(abs(integer) >> bit & 1 == 1 for bit in (2, 1, 0)), (hex(x), hex(y))
        assert not status & 0xFF


@pytest.mark.parametrize("name", ["fsin", "fptan", "fpatan", "fyl2xp1", "f2xm1"])
def test_odd_functions_are_odd(name: str) -> None:
    rng = random.Random(name)
    for _ in range(50):
        x = _random(rng, -30, -3)
        results = []
        for sign in (0, 1 << 79):
            operands = [ONE, x ^ sign] if name == "fpatan" else [x ^ sign, ONE]
            cpu = Stack(operands)
            x87.execute(cpu, OPCODES[name])
            results.append(int(cpu.number(1 if name == "fptan" else 0), 16))
        if name in ("fsin", "fptan", "fpatan"):
            assert results[0] ^ results[1] == 1 << 79
        else:  # 2^x - 1 and log2(1 + x) have the sign of x
            assert (results[0] ^ results[1]) >> 79 == 1


def test_out_of_range_angles_are_told() -> None:
    for name in ("fsin", "fcos", "fptan", "fsincos"):
        cpu = Stack([0x403E8000000000000000])
        x87.execute(cpu, OPCODES[name])
        assert (cpu.registers["fstat"] & (C1 | C2), cpu.number(0)) == (C2, "403e8000000000000000")
        x87.execute(cpu := Stack([0x403DFFFFFFFFFFFFFFFF]), OPCODES[name])
        assert not cpu.registers["fstat"] & C2


@pytest.mark.parametrize(
    ("cr0", "status", "number"), [(0x35, 0, 7), (0x39, 0, 7), (0x31, 0x8080, 16), (0x11, 0x8080, None)]
)
def test_faults_come_before_anything_changes(cr0: int, status: int, number: int | None) -> None:
    cpu = Stack([ONE])
    cpu.registers |= {"cr0": cr0, "fstat": cpu.registers["fstat"] | status}
    if number is None:
        x87.execute(cpu, OPCODES["fsin"])
        return
    with pytest.raises(IllegalInstruction) as error:
        x87.execute(cpu, OPCODES["fsin"])
    assert (error.value.number, error.value.detail, cpu.writes) == (number, None, [])


def test_the_native_half_takes_nothing_else() -> None:
    for opcode, number in ((0xFA, bytes(10)), (0xFE, bytes(9)), (0xFE, b"")):
        with pytest.raises(ValueError, match=r"d9 fa|10 bytes"):
            _x87.execute(opcode, 0x37F, 0, 0, number, bytes(10))
