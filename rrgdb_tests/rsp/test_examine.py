"""``x`` and ``xp`` print what QEMU 7.2 prints of the same memory."""

from __future__ import annotations

import pytest

from rrgdb.rsp.debuggee import DebuggeeError
from rrgdb.rsp.examine import dump, parse

ROM = bytes.fromhex("97020000138682027325 40f183b502028 3b28201 67800200 00000080 00000000 0000e087".replace(" ", ""))
"""what `qemu-system-riscv64 -M virt -bios none` has at 0x1000"""


def _read(address: int, length: int) -> bytes:
    if not 0 <= address - 0x1000 < len(ROM):
        raise DebuggeeError("no memory")
    return ROM[address - 0x1000 :][:length]


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        ("/8xb", ["0000000000001000: 0x97 0x02 0x00 0x00 0x13 0x86 0x82 0x02"]),
        ("/3xh", ["0000000000001000: 0x0297 0x0000 0x8613"]),
        ("/2gx", ["0000000000001000: 0x0282861300000297 0x0202b583f1402573"]),
        (
            "/4og",
            [
                "0000000000001000:  012024141140000001227  010025530176120022563",
                "0000000000001010:     024006340140531203           020000000000",
            ],
        ),
        (
            "/4dg",
            [
                "0000000000001000:   180854351210742423   144877716322133363",
                "0000000000001010:      704129848750723           2147483648",
            ],
        ),
        (
            "/9ub",
            [
                "0000000000001000: 151   2   0   0  19 134 130   2",
                "0000000000001008: 115",
            ],
        ),
        (
            "/10c",
            [
                "0000000000001000: '\\x97' '\\x02' '\\x00' '\\x00' '\\x13' '\\x86' '\\x82' '\\x02'",
                "0000000000001008: 's' '%'",
            ],
        ),
        ("/db", ["0000000000001000: -105"]),
        ("/2oh", ["0000000000001000:  01227      0"]),
    ],
)
def test_as_qemu(form: str, lines: list[str]) -> None:
    assert dump(parse(form), 0x1000, 16, _read, "little").splitlines() == lines


def test_memory_that_ends() -> None:
    end = 0x1000 + len(ROM)
    assert dump(parse("/4xw"), end - 6, 8, _read, "big") == f"{end - 6:08x}: 0x00000000 Cannot access memory\n"
    assert dump(parse("/4xw"), end, 8, _read, "big") == f"{end:08x}: Cannot access memory\n"
