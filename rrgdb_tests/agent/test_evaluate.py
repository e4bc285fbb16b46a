"""Agent expressions: each operation by hand, bad bytecode, and arbitrary bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.agent.bytecode import AgentError
from rrgdb.agent.evaluate import evaluate, judge
from rrgdb.arch.cpu import MemoryFault
from rrgdb.errors import Error

MASK = (1 << 64) - 1
NUMBERS = {
    "add": 0x02, "sub": 0x03, "mul": 0x04, "div_signed": 0x05, "div_unsigned": 0x06, "rem_signed": 0x07,
    "rem_unsigned": 0x08, "lsh": 0x09, "rsh_signed": 0x0A, "rsh_unsigned": 0x0B, "log_not": 0x0E, "bit_and": 0x0F,
    "bit_or": 0x10, "bit_xor": 0x11, "bit_not": 0x12, "equal": 0x13, "less_signed": 0x14, "less_unsigned": 0x15,
    "ext": 0x16, "ref8": 0x17, "ref16": 0x18, "ref32": 0x19, "ref64": 0x1A, "if_goto": 0x20, "goto": 0x21,
    "reg": 0x26, "end": 0x27, "dup": 0x28, "pop": 0x29, "zero_ext": 0x2A, "swap": 0x2B, "pick": 0x32, "rot": 0x33,
}  # fmt: skip
MEMORY = bytes(range(0x80, 0x100))
OPERATIONS = [
    ("2 3 add", 5),
    ("2 3 sub", -1),
    (f"{MASK} {MASK} mul", 1),
    ("-7 2 div_signed", -3),
    ("7 -2 div_signed", -3),
    ("-7 2 div_unsigned", (MASK - 6) // 2),
    ("-7 2 rem_signed", -1),
    ("7 -2 rem_signed", 1),
    ("-7 4 rem_unsigned", 1),
    ("0x8000000000000000 -1 div_signed", 1 << 63),
    ("1 63 lsh", 1 << 63),
    ("1 64 lsh", 0),
    ("1 -1 lsh", 0),
    ("-8 1 rsh_signed", -4),
    ("-8 200 rsh_signed", -1),
    ("-8 60 rsh_unsigned", 15),
    ("-8 64 rsh_unsigned", 0),
    ("0 log_not", 1),
    ("5 log_not", 0),
    ("12 10 bit_and", 8),
    ("12 10 bit_or", 14),
    ("12 10 bit_xor", 6),
    ("0 bit_not", -1),
    ("3 3 equal", 1),
    ("3 4 equal", 0),
    ("-1 1 less_signed", 1),
    ("-1 1 less_unsigned", 0),
    ("0x80 ext:8", -128),
    ("0x17f ext:8", 127),
    ("-1 ext:64", -1),
    ("-1 zero_ext:8", 255),
    ("-1 zero_ext:64", -1),
    ("1 ref8", 0x81),
    ("1 ref16", 0x8281),
    ("1 ref32", 0x84838281),
    ("0 ref64", 0x8786858483828180),
    ("reg:3", 300),
    ("4 dup add", 8),
    ("4 5 pop", 4),
    ("9 4 swap sub", -5),
    ("1 2 3 pick:0", 3),
    ("1 2 3 pick:2", 1),
    ("1 2 3 rot", 2),
    ("1 2 3 rot pop", 1),
    ("1 2 3 rot pop pop", 3),
]
"""expressions and what they come to; ``MEMORY`` is at 0, register n holds 100 n"""


def assemble(text: str) -> bytes:
    """``7`` is const64; ``ext:8`` has a one-byte operand, ``reg:2`` and jumps a two-byte one."""
    code = b""
    for word in text.split():
        name, _, operand = word.partition(":")
        if name not in NUMBERS:
            code += b"\x25" + (int(name, 0) & MASK).to_bytes(8, "big")
            continue
        code += bytes((NUMBERS[name],))
        if operand:
            code += int(operand, 0).to_bytes(2 if name in ("reg", "goto", "if_goto") else 1, "big")
    return code


def read_register(number: int) -> int:
    if number > 3:
        raise AgentError(f"no register {number}")
    return number * 100


def read_memory(address: int, length: int) -> bytes:
    if address >= len(MEMORY):
        raise MemoryFault(address)
    return MEMORY[address : address + length]


def run(text: str) -> int:
    return evaluate(assemble(text + " end"), read_register, read_memory, "little")


@pytest.mark.parametrize(("text", "expected"), OPERATIONS)
def test_operations(text: str, expected: int) -> None:
    assert run(text) == expected & MASK


def test_short_constants_are_not_sign_extended() -> None:
    assert evaluate(b"\x22\xff\x27", read_register, read_memory) == 0xFF
    assert evaluate(b"\x23\xff\xfe\x27", read_register, read_memory) == 0xFFFE
    assert evaluate(b"\x24\xff\xfe\xfd\xfc\x27", read_register, read_memory) == 0xFFFEFDFC


def test_memory_in_target_byte_order() -> None:
    assert evaluate(assemble("0 ref16 end"), read_register, read_memory, "big") == 0x8081


def test_loop_sums_one_to_ten() -> None:
    loop = bytes.fromhex(
        "2200"  # 0: sum = 0
        "220a"  # 2: n = 10
        "28"  # 4: dup n
        "20000a"  # 5: if n goto 10
        "29"  # 8: pop n
        "27"  # 9: end -> sum
        "28"  # 10: dup n
        "33"  # 11: rot: sum n n -> n sum n
        "02"  # 12: add: n sum'
        "2b"  # 13: swap: sum' n
        "2201"  # 14
        "03"  # 16: n - 1
        "210004"  # 17: goto 4
    )
    assert evaluate(loop, read_register, read_memory) == 55


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"", "0 bytes"),
        (b"\x27" * 5000, "5000 bytes"),
        (b"\x00\x27", "unknown operation"),
        (b"\xff", "unknown operation"),
        (b"\x1b\x27", "ref_float is not supported"),
        (b"\x34\x27", "printf is not supported"),
        (b"\x25\x00\x27", "ends inside const64"),
        (b"\x22\x01", "runs off"),
        (b"\x22\x01\x16\x00\x27", "ext of 0 bits"),
        (b"\x22\x01\x16\x41\x27", "ext of 65 bits"),
        (b"\x21\x00\x01", "goto to 1"),
        (b"\x21\x00\x09\x27", "goto to 9"),
    ],
)
def test_bad_bytecode(code: bytes, message: str) -> None:
    with pytest.raises(AgentError, match=message):
        evaluate(code, read_register, read_memory)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "underflow"),
        ("1 add", "underflow"),
        ("1 2 rot", "underflow"),
        ("1 pick:1", "underflow"),
        ("1 0 div_signed", "divides by zero"),
        ("1 0 rem_unsigned", "divides by zero"),
        ("126 ref32", "where memory ends"),
    ],
)
def test_expressions_that_fail(text: str, message: str) -> None:
    with pytest.raises(AgentError, match=message):
        run(text)


def test_endless_loop_and_endless_stack_are_ended() -> None:
    with pytest.raises(AgentError, match="not finished"):
        evaluate(b"\x21\x00\x00", read_register, read_memory)
    with pytest.raises(AgentError, match="values on the stack"):
        evaluate(b"\x22\x01\x21\x00\x00", read_register, read_memory)


def test_what_conditions_come_to() -> None:
    def judged(*texts: str) -> tuple[bool, str | None]:
        return judge([assemble(text + " end") for text in texts], read_register, read_memory)

    assert judged() == (True, None)
    assert judged("0") == (False, None)
    assert judged("reg:1 100 equal") == (True, None)
    assert judged("reg:1 101 equal", "0") == (False, None)
    assert judged("0", "1") == (True, None)
    assert judged("0xffff ref8") == (True, "no memory at 0xffff"), "a condition that cannot be told shows itself"
    assert judged("reg:9", "0") == (True, "no register 9")
    assert judged("0", "1 0 div_signed", "reg:9") == (True, "agent expression divides by zero")
    assert judged("reg:9", "1") == (True, None)


@given(st.binary(max_size=40) | st.lists(st.sampled_from(list(range(0x36))), max_size=40).map(bytes))
def test_any_bytes_give_a_number_or_an_error(code: bytes) -> None:
    try:
        value = evaluate(code, read_register, lambda _, length: bytes(length))
    except Error:
        return
    assert 0 <= value <= MASK


@given(st.lists(st.sampled_from([*sorted(NUMBERS), "1", "-2", "0x40"]), max_size=12))
def test_the_walk_and_the_straight_way_agree(words: list[str]) -> None:
    words = [word for word in words if word not in ("goto", "if_goto")]
    operands = {"ext": ":8", "zero_ext": ":16", "pick": ":1", "reg": ":2"}
    straight = assemble(" ".join(["5", "6", "7", *(word + operands.get(word, "") for word in words), "end"]))
    walked = b"\x21\x00\x03" + straight

    def outcome(code: bytes) -> int | None:
        try:
            return evaluate(code, read_register, read_memory)
        except Error:
            return None

    assert outcome(straight) == outcome(walked)
