"""GDB's agent expressions: the bytecode of a breakpoint's condition (GDB manual, "Agent Expressions").

Values are 64-bit and wrap; operands in the bytecode are big-endian. Decoded once and kept, since a timeline asks the
same condition thousands of times a second. Floating point, tracing, trace variables and printf are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from rrgdb.rsp.debuggee import DebuggeeError

ReadRegister: TypeAlias = Callable[[int], int]
ReadMemory: TypeAlias = Callable[[int, int], bytes]
ByteOrder: TypeAlias = Literal["little", "big"]

STACK_LIMIT = 100
STEP_LIMIT = 10_000
CODE_LIMIT = 1024
_MASK = (1 << 64) - 1
_SIGN = 1 << 63


class AgentError(DebuggeeError):
    """Bytecode that is malformed or unsupported, or that failed while it ran; EINVAL."""


@dataclass(slots=True)
class _Machine:
    stack: list[int]
    read_register: ReadRegister
    read_memory: ReadMemory
    byteorder: ByteOrder


_Action: TypeAlias = Callable[[_Machine, int], None]


def _signed(value: int) -> int:
    return value - (1 << 64) if value & _SIGN else value


def _binary(function: Callable[[int, int], int]) -> _Action:
    def act(machine: _Machine, _: int) -> None:
        stack = machine.stack
        right = stack.pop()
        stack[-1] = function(stack[-1], right) & _MASK

    return act


def _unary(function: Callable[[int], int]) -> _Action:
    def act(machine: _Machine, _: int) -> None:
        machine.stack[-1] = function(machine.stack[-1]) & _MASK

    return act


def _divide(left: int, right: int) -> int:
    if right == 0:
        raise AgentError("agent expression divides by zero")
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _remainder(left: int, right: int) -> int:
    return left - right * _divide(left, right)


def _rsh_signed(left: int, right: int) -> int:
    return _signed(left) >> min(right, 63)


def _lsh(left: int, right: int) -> int:
    return left << right if right < 64 else 0


def _rsh_unsigned(left: int, right: int) -> int:
    return left >> right if right < 64 else 0


def _ref(size: int) -> _Action:
    def act(machine: _Machine, _: int) -> None:
        address = machine.stack[-1]
        data = machine.read_memory(address, size)
        if len(data) != size:
            raise AgentError(f"agent expression reads {size} bytes at {address:#x}, where memory ends", 14)
        machine.stack[-1] = int.from_bytes(data, machine.byteorder)

    return act


def _const(machine: _Machine, value: int) -> None:
    machine.stack.append(value)


def _reg(machine: _Machine, number: int) -> None:
    machine.stack.append(machine.read_register(number) & _MASK)


def _ext(machine: _Machine, bits: int) -> None:
    sign = 1 << (bits - 1)
    value = machine.stack[-1] & ((1 << bits) - 1)
    machine.stack[-1] = ((value ^ sign) - sign) & _MASK


def _zero_ext(machine: _Machine, bits: int) -> None:
    machine.stack[-1] &= (1 << bits) - 1


def _dup(machine: _Machine, _: int) -> None:
    machine.stack.append(machine.stack[-1])


def _pop(machine: _Machine, _: int) -> None:
    machine.stack.pop()


def _swap(machine: _Machine, _: int) -> None:
    stack = machine.stack
    stack[-1], stack[-2] = stack[-2], stack[-1]


def _pick(machine: _Machine, depth: int) -> None:
    machine.stack.append(machine.stack[-1 - depth])


def _rot(machine: _Machine, _: int) -> None:
    """a b c -> c a b (c is the top)."""
    stack = machine.stack
    stack[-3:] = (stack[-1], stack[-3], stack[-2])


def _unreachable(_: _Machine, __: int) -> None:
    raise AssertionError("control flow is not an action")


@dataclass(frozen=True, slots=True)
class _Opcode:
    name: str
    operand: int = 0
    """bytes of operand in the bytecode"""
    needs: int = 0
    """values it takes from the stack or looks at"""
    action: _Action = _unreachable
    grows: int = 0
    """by how many values the stack is longer afterwards"""


_GOTO, _IF_GOTO, _END = 0x21, 0x20, 0x27

_OPCODES: dict[int, _Opcode] = {
    0x02: _Opcode("add", 0, 2, _binary(lambda a, b: a + b), -1),
    0x03: _Opcode("sub", 0, 2, _binary(lambda a, b: a - b), -1),
    0x04: _Opcode("mul", 0, 2, _binary(lambda a, b: a * b), -1),
    0x05: _Opcode("div_signed", 0, 2, _binary(lambda a, b: _divide(_signed(a), _signed(b))), -1),
    0x06: _Opcode("div_unsigned", 0, 2, _binary(_divide), -1),
    0x07: _Opcode("rem_signed", 0, 2, _binary(lambda a, b: _remainder(_signed(a), _signed(b))), -1),
    0x08: _Opcode("rem_unsigned", 0, 2, _binary(_remainder), -1),
    0x09: _Opcode("lsh", 0, 2, _binary(_lsh), -1),
    0x0A: _Opcode("rsh_signed", 0, 2, _binary(_rsh_signed), -1),
    0x0B: _Opcode("rsh_unsigned", 0, 2, _binary(_rsh_unsigned), -1),
    0x0E: _Opcode("log_not", 0, 1, _unary(lambda a: a == 0)),
    0x0F: _Opcode("bit_and", 0, 2, _binary(lambda a, b: a & b), -1),
    0x10: _Opcode("bit_or", 0, 2, _binary(lambda a, b: a | b), -1),
    0x11: _Opcode("bit_xor", 0, 2, _binary(lambda a, b: a ^ b), -1),
    0x12: _Opcode("bit_not", 0, 1, _unary(lambda a: ~a)),
    0x13: _Opcode("equal", 0, 2, _binary(lambda a, b: a == b), -1),
    0x14: _Opcode("less_signed", 0, 2, _binary(lambda a, b: _signed(a) < _signed(b)), -1),
    0x15: _Opcode("less_unsigned", 0, 2, _binary(lambda a, b: a < b), -1),
    0x16: _Opcode("ext", 1, 1, _ext),
    0x17: _Opcode("ref8", 0, 1, _ref(1)),
    0x18: _Opcode("ref16", 0, 1, _ref(2)),
    0x19: _Opcode("ref32", 0, 1, _ref(4)),
    0x1A: _Opcode("ref64", 0, 1, _ref(8)),
    _IF_GOTO: _Opcode("if_goto", 2, 1),
    _GOTO: _Opcode("goto", 2),
    0x22: _Opcode("const8", 1, 0, _const, 1),
    0x23: _Opcode("const16", 2, 0, _const, 1),
    0x24: _Opcode("const32", 4, 0, _const, 1),
    0x25: _Opcode("const64", 8, 0, _const, 1),
    0x26: _Opcode("reg", 2, 0, _reg, 1),
    _END: _Opcode("end", 0, 1),
    0x28: _Opcode("dup", 0, 1, _dup, 1),
    0x29: _Opcode("pop", 0, 1, _pop, -1),
    0x2A: _Opcode("zero_ext", 1, 1, _zero_ext),
    0x2B: _Opcode("swap", 0, 2, _swap),
    0x32: _Opcode("pick", 1, 0, _pick, 1),
    0x33: _Opcode("rot", 0, 3, _rot),
}

_REFUSED = {
    0x01: "float", 0x0C: "trace", 0x0D: "trace_quick", 0x1B: "ref_float", 0x1C: "ref_double",
    0x1D: "ref_long_double", 0x1E: "l_to_d", 0x1F: "d_to_l", 0x2C: "getv", 0x2D: "setv", 0x2E: "tracev",
    0x2F: "tracenz", 0x30: "trace16", 0x34: "printf",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Instruction:
    opcode: int
    offset: int
    operand: int


def _split(code: bytes) -> list[_Instruction]:
    """Bytecode cut into instructions; opcodes, operands and the end are checked, jumps are not."""
    if not 0 < len(code) <= CODE_LIMIT:
        raise AgentError(f"agent expression of {len(code)} bytes; 1 to {CODE_LIMIT} expected")
    instructions = []
    at = 0
    while at < len(code):
        byte = code[at]
        opcode = _OPCODES.get(byte)
        if opcode is None:
            name = _REFUSED.get(byte)
            what = f"operation {name} is not supported" if name else f"unknown operation {byte:#04x}"
            raise AgentError(f"agent expression: {what} (offset {at})")
        after = at + 1 + opcode.operand
        if after > len(code):
            raise AgentError(f"agent expression ends inside {opcode.name} (offset {at})")
        operand = int.from_bytes(code[at + 1 : after], "big")
        if opcode.name in ("ext", "zero_ext") and not 1 <= operand <= 64:
            raise AgentError(f"agent expression: {opcode.name} of {operand} bits (offset {at})")
        instructions.append(_Instruction(byte, at, operand))
        at = after
    if instructions[-1].opcode not in (_END, _GOTO):
        raise AgentError("agent expression runs off its end")
    return instructions


_STOP, _JUMP, _BRANCH = -1, -2, -3


@dataclass(frozen=True, slots=True)
class _Program:
    """``steps``: (action or one of _STOP/_JUMP/_BRANCH; operand, or index to go to; values needed on the stack).

    ``straight``: without jumps the stack is checked once, here, and only (action, operand) are left to do.
    """

    steps: tuple[tuple[_Action | int, int, int], ...]
    straight: tuple[tuple[_Action, int], ...] | None


@lru_cache(maxsize=512)
def _decode(code: bytes) -> _Program:
    instructions = _split(code)
    index = {instruction.offset: i for i, instruction in enumerate(instructions)}
    steps: list[tuple[_Action | int, int, int]] = []
    for instruction in instructions:
        opcode = _OPCODES[instruction.opcode]
        if instruction.opcode in (_GOTO, _IF_GOTO):
            target = index.get(instruction.operand)
            if target is None:
                raise AgentError(
                    f"agent expression: {opcode.name} to {instruction.operand}, which is no instruction "
                    f"(offset {instruction.offset})"
                )
            steps.append((_JUMP if instruction.opcode == _GOTO else _BRANCH, target, opcode.needs))
        elif instruction.opcode == _END:
            steps.append((_STOP, 0, opcode.needs))
        else:
            steps.append((opcode.action, instruction.operand, _needs(instruction)))
    jumps = any(instruction.opcode in (_GOTO, _IF_GOTO) for instruction in instructions)
    return _Program(tuple(steps), None if jumps else _straighten(instructions))


def _needs(instruction: _Instruction) -> int:
    opcode = _OPCODES[instruction.opcode]
    return instruction.operand + 1 if opcode.name == "pick" else opcode.needs


def _straighten(instructions: list[_Instruction]) -> tuple[tuple[_Action, int], ...]:
    """What is to do before the first ``end`` of a program without jumps; its stack never runs empty or over."""
    depth = 0
    actions = []
    for instruction in instructions:
        opcode = _OPCODES[instruction.opcode]
        if depth < _needs(instruction):
            raise AgentError("agent expression: stack underflow")
        if instruction.opcode == _END:
            break
        depth += opcode.grows
        if depth > STACK_LIMIT:
            raise AgentError(f"agent expression: more than {STACK_LIMIT} values on the stack")
        actions.append((opcode.action, instruction.operand))
    return tuple(actions)


def evaluate(code: bytes, read_register: ReadRegister, read_memory: ReadMemory, byteorder: ByteOrder = "little") -> int:
    """Run ``code``; the top of the stack at ``end``, unsigned 64 bits.

    ``read_register`` takes GDB's number (the order of ``Debuggee.registers``), ``read_memory`` address and length.
    Raises AgentError for bad bytecode, and whatever the two readers raise.
    """
    program = _decode(code)
    stack: list[int] = []
    machine = _Machine(stack, read_register, read_memory, byteorder)
    if program.straight is None:
        return _walk(program.steps, machine)
    for action, operand in program.straight:
        action(machine, operand)
    return stack[-1]


def _walk(steps: tuple[tuple[_Action | int, int, int], ...], machine: _Machine) -> int:
    stack = machine.stack
    at = 0
    for _ in range(STEP_LIMIT):
        action, operand, needs = steps[at]
        if len(stack) < needs:
            raise AgentError("agent expression: stack underflow")
        at += 1
        if not isinstance(action, int):
            action(machine, operand)
            if len(stack) > STACK_LIMIT:
                raise AgentError(f"agent expression: more than {STACK_LIMIT} values on the stack")
        elif action == _STOP:
            return stack[-1]
        elif action == _JUMP or stack.pop():
            at = operand
    raise AgentError(f"agent expression: not finished after {STEP_LIMIT} operations")


def judge(
    codes: Iterable[bytes], read_register: ReadRegister, read_memory: ReadMemory, byteorder: ByteOrder = "little"
) -> tuple[bool, str | None]:
    """Whether a point with these conditions hits: no condition at all, or any that is non-zero. And if that cannot be
    told, why not.

    One that fails (AgentError, or DebuggeeError out of the readers) counts as true, as it does for gdbserver: the user
    should see a condition that cannot be evaluated.
    """
    failure: str | None = None
    any_code = False
    for code in codes:
        any_code = True
        try:
            if evaluate(code, read_register, read_memory, byteorder):
                return True, None
        except DebuggeeError as error:
            failure = failure or str(error)
    return failure is not None or not any_code, failure
