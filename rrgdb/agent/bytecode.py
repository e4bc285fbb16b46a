"""The bytecode of GDB's agent expressions (GDB manual, "Agent Expressions"): its operations as data, and code cut into
instructions. Values are 64-bit and wrap; operands in the bytecode are big-endian. Floating point, tracing, trace
variables and printf are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from rrgdb.errors import Error

STACK_LIMIT = 100
STEP_LIMIT = 10_000
CODE_LIMIT = 1024
GOTO, IF_GOTO, END = 0x21, 0x20, 0x27


class AgentError(Error):
    """Bytecode that is malformed or unsupported, or that failed while it ran: one line."""


@dataclass(frozen=True, slots=True)
class Operation:
    name: str
    operand: int = 0
    """bytes of operand in the bytecode"""
    needs: int = 0
    """values it takes from the stack or looks at"""
    grows: int = 0
    """by how many values the stack is longer afterwards"""


OPERATIONS: dict[int, Operation] = {
    0x02: Operation("add", 0, 2, -1),
    0x03: Operation("sub", 0, 2, -1),
    0x04: Operation("mul", 0, 2, -1),
    0x05: Operation("div_signed", 0, 2, -1),
    0x06: Operation("div_unsigned", 0, 2, -1),
    0x07: Operation("rem_signed", 0, 2, -1),
    0x08: Operation("rem_unsigned", 0, 2, -1),
    0x09: Operation("lsh", 0, 2, -1),
    0x0A: Operation("rsh_signed", 0, 2, -1),
    0x0B: Operation("rsh_unsigned", 0, 2, -1),
    0x0E: Operation("log_not", 0, 1),
    0x0F: Operation("bit_and", 0, 2, -1),
    0x10: Operation("bit_or", 0, 2, -1),
    0x11: Operation("bit_xor", 0, 2, -1),
    0x12: Operation("bit_not", 0, 1),
    0x13: Operation("equal", 0, 2, -1),
    0x14: Operation("less_signed", 0, 2, -1),
    0x15: Operation("less_unsigned", 0, 2, -1),
    0x16: Operation("ext", 1, 1),
    0x17: Operation("ref8", 0, 1),
    0x18: Operation("ref16", 0, 1),
    0x19: Operation("ref32", 0, 1),
    0x1A: Operation("ref64", 0, 1),
    IF_GOTO: Operation("if_goto", 2, 1),
    GOTO: Operation("goto", 2, 0),
    0x22: Operation("const8", 1, 0, 1),
    0x23: Operation("const16", 2, 0, 1),
    0x24: Operation("const32", 4, 0, 1),
    0x25: Operation("const64", 8, 0, 1),
    0x26: Operation("reg", 2, 0, 1),
    END: Operation("end", 0, 1),
    0x28: Operation("dup", 0, 1, 1),
    0x29: Operation("pop", 0, 1, -1),
    0x2A: Operation("zero_ext", 1, 1),
    0x2B: Operation("swap", 0, 2),
    0x32: Operation("pick", 1, 0, 1),
    0x33: Operation("rot", 0, 3),
}

_REFUSED = {
    0x01: "float", 0x0C: "trace", 0x0D: "trace_quick", 0x1B: "ref_float", 0x1C: "ref_double",
    0x1D: "ref_long_double", 0x1E: "l_to_d", 0x1F: "d_to_l", 0x2C: "getv", 0x2D: "setv", 0x2E: "tracev",
    0x2F: "tracenz", 0x30: "trace16", 0x34: "printf",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instruction:
    opcode: int
    offset: int
    operand: int


def split(code: bytes) -> list[Instruction]:
    """Bytecode cut into instructions; opcodes, operands and the end are checked, jumps are not."""
    if not 0 < len(code) <= CODE_LIMIT:
        raise AgentError(f"agent expression of {len(code)} bytes; 1 to {CODE_LIMIT} expected")
    instructions = []
    at = 0
    while at < len(code):
        byte = code[at]
        operation = OPERATIONS.get(byte)
        if operation is None:
            name = _REFUSED.get(byte)
            what = f"operation {name} is not supported" if name else f"unknown operation {byte:#04x}"
            raise AgentError(f"agent expression: {what} (offset {at})")
        after = at + 1 + operation.operand
        if after > len(code):
            raise AgentError(f"agent expression ends inside {operation.name} (offset {at})")
        operand = int.from_bytes(code[at + 1 : after], "big")
        if operation.name in ("ext", "zero_ext") and not 1 <= operand <= 64:
            raise AgentError(f"agent expression: {operation.name} of {operand} bits (offset {at})")
        instructions.append(Instruction(byte, at, operand))
        at = after
    if instructions[-1].opcode not in (END, GOTO):
        raise AgentError("agent expression runs off its end")
    return instructions


def native_table() -> bytes:
    """What the engine's native twin is to know of each byte 0 to 255, three bytes each: whether it is an operation,
    bytes of operand, values needed on the stack."""
    rows = (OPERATIONS.get(byte) for byte in range(256))
    return b"".join(b"\0\0\0" if row is None else bytes((1, row.operand, row.needs)) for row in rows)
