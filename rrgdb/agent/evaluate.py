"""Agent expressions evaluated: the specification of what the hooks judge natively.

Decoded once and kept, since a timeline asks the same condition thousands of times a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from rrgdb.agent.bytecode import END, GOTO, IF_GOTO, OPERATIONS, STACK_LIMIT, STEP_LIMIT, AgentError, Instruction, split
from rrgdb.errors import Error

ReadRegister: TypeAlias = Callable[[int], int]
ReadMemory: TypeAlias = Callable[[int, int], bytes]
ByteOrder: TypeAlias = Literal["little", "big"]

_MASK = (1 << 64) - 1
_SIGN = 1 << 63


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


_ACTIONS: dict[str, _Action] = {
    "add": _binary(lambda a, b: a + b),
    "sub": _binary(lambda a, b: a - b),
    "mul": _binary(lambda a, b: a * b),
    "div_signed": _binary(lambda a, b: _divide(_signed(a), _signed(b))),
    "div_unsigned": _binary(_divide),
    "rem_signed": _binary(lambda a, b: _remainder(_signed(a), _signed(b))),
    "rem_unsigned": _binary(_remainder),
    "lsh": _binary(_lsh),
    "rsh_signed": _binary(_rsh_signed),
    "rsh_unsigned": _binary(_rsh_unsigned),
    "log_not": _unary(lambda a: a == 0),
    "bit_and": _binary(lambda a, b: a & b),
    "bit_or": _binary(lambda a, b: a | b),
    "bit_xor": _binary(lambda a, b: a ^ b),
    "bit_not": _unary(lambda a: ~a),
    "equal": _binary(lambda a, b: a == b),
    "less_signed": _binary(lambda a, b: _signed(a) < _signed(b)),
    "less_unsigned": _binary(lambda a, b: a < b),
    "ext": _ext,
    "ref8": _ref(1),
    "ref16": _ref(2),
    "ref32": _ref(4),
    "ref64": _ref(8),
    "const8": _const,
    "const16": _const,
    "const32": _const,
    "const64": _const,
    "reg": _reg,
    "dup": _dup,
    "pop": _pop,
    "zero_ext": _zero_ext,
    "swap": _swap,
    "pick": _pick,
    "rot": _rot,
}

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
    instructions = split(code)
    index = {instruction.offset: i for i, instruction in enumerate(instructions)}
    steps: list[tuple[_Action | int, int, int]] = []
    for instruction in instructions:
        operation = OPERATIONS[instruction.opcode]
        if instruction.opcode in (GOTO, IF_GOTO):
            target = index.get(instruction.operand)
            if target is None:
                raise AgentError(
                    f"agent expression: {operation.name} to {instruction.operand}, which is no instruction "
                    f"(offset {instruction.offset})"
                )
            steps.append((_JUMP if instruction.opcode == GOTO else _BRANCH, target, operation.needs))
        elif instruction.opcode == END:
            steps.append((_STOP, 0, operation.needs))
        else:
            steps.append((_ACTIONS[operation.name], instruction.operand, _needs(instruction)))
    jumps = any(instruction.opcode in (GOTO, IF_GOTO) for instruction in instructions)
    return _Program(tuple(steps), None if jumps else _straighten(instructions))


def _needs(instruction: Instruction) -> int:
    operation = OPERATIONS[instruction.opcode]
    return instruction.operand + 1 if operation.name == "pick" else operation.needs


def _straighten(instructions: list[Instruction]) -> tuple[tuple[_Action, int], ...]:
    """What is to do before the first ``end`` of a program without jumps; its stack never runs empty or over."""
    depth = 0
    actions = []
    for instruction in instructions:
        operation = OPERATIONS[instruction.opcode]
        if depth < _needs(instruction):
            raise AgentError("agent expression: stack underflow")
        if instruction.opcode == END:
            break
        depth += operation.grows
        if depth > STACK_LIMIT:
            raise AgentError(f"agent expression: more than {STACK_LIMIT} values on the stack")
        actions.append((_ACTIONS[operation.name], instruction.operand))
    return tuple(actions)


def evaluate(code: bytes, read_register: ReadRegister, read_memory: ReadMemory, byteorder: ByteOrder = "little") -> int:
    """Run ``code``; the top of the stack at ``end``, unsigned 64 bits.

    ``read_register`` takes GDB's number (the order of ``Arch.registers``), ``read_memory`` address and length.
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

    One that fails (AgentError, or an error out of the readers) counts as true, as it does for gdbserver: the user
    should see a condition that cannot be evaluated.
    """
    failure: str | None = None
    any_code = False
    for code in codes:
        any_code = True
        try:
            if evaluate(code, read_register, read_memory, byteorder):
                return True, None
        except Error as error:
            failure = failure or str(error)
    return failure is not None or not any_code, failure
