"""Exception entry and return of the M profile: stacking, EXC_RETURN, tail-chaining, faults.

Source: DDI 0403, sections B1.5.6 to B1.5.14; where it is open, QEMU's ``v7m_exception_taken`` and
``do_v7m_exception_exit``. Entering a handler, and returning from one, are one instruction each: what is stacked, loaded
and chained belongs to it.
"""

from __future__ import annotations

from rrgdb.arch import armv7m_mpu as mpu
from rrgdb.arch import armv7m_nvic as nvic
from rrgdb.arch import thumb
from rrgdb.arch.base import DIVISION_BY_ZERO, CpuException, ExceptionKind
from rrgdb.arch.cpu import Cpu, MemoryFault

EXCEPTION_EXIT, NO_COPROCESSOR = 8, 17
"""numbers of NATIVE exceptions: a branch to EXC_RETURN in a handler, a coprocessor that is not there"""

T = 1 << 24
_REALIGNED = 1 << 9
_GE = 0xF << 16
_HANDLER = 0x1FF
CONTROL_NPRIV, CONTROL_SPSEL = 1, 2
CCR_NONBASETHRDENA, CCR_USERSETMPEND, CCR_UNALIGN_TRP, CCR_DIV_0_TRP, CCR_STKALIGN = (
    1 << bit for bit in (0, 1, 3, 4, 9)
)
RULE_UNALIGNED, RULE_DIVISION, RULE_USER_PENDS, RULE_MPU, RULE_DEFAULT_MAP, RULE_NEGATIVE, RULE_NO_MPU = (
    1 << bit for bit in range(7)
)
"""bits of ``Arch.rules``"""
_RULES = ((CCR_UNALIGN_TRP, RULE_UNALIGNED), (CCR_DIV_0_TRP, RULE_DIVISION), (CCR_USERSETMPEND, RULE_USER_PENDS))
LOCKUP = 0xFFFFFFFE
"""where the program counter of a CPU in lockup stands (section B1.5.15)"""
_FRAME = 32
_MASK = 0xFFFFFFFF
_FRAME_REGISTERS = ("r0", "r1", "r2", "r3", "r12", "lr")

# Configurable fault status (section B3.2.15).
IACCVIOL, DACCVIOL, MUNSTKERR, MSTKERR, MMARVALID = (1 << bit for bit in (0, 1, 3, 4, 7))
IBUSERR, PRECISERR, UNSTKERR, STKERR, BFARVALID = (1 << bit for bit in (8, 9, 11, 12, 15))
UNDEFINSTR, INVSTATE, INVPC, NOCP, UNALIGNED, DIVBYZERO = (1 << bit for bit in (16, 17, 18, 19, 24, 25))

_EXC_RETURN = 0xFFFFFFF1
_TO_THREAD, _TO_PROCESS_STACK = 8, 4
_ALIGNMENT, _PERMISSION = 0x001, 0x00D
"""fault status, as the engine tells it, of an access that is not aligned, and of one that is not allowed"""


def rules(cpu: nvic.Registers) -> tuple[int, tuple[mpu.Region, ...]]:
    """``Arch.rules``."""
    ccr, control = cpu.read("ccr"), cpu.read("mpu_ctrl")
    bits = sum(rule for bit, rule in _RULES if ccr & bit)
    if not control & mpu.ENABLE:
        return bits, ()
    bits |= RULE_MPU
    if control & mpu.PRIVDEFENA:
        bits |= RULE_DEFAULT_MAP
    if not control & mpu.HFNMIENA:
        bits |= RULE_NEGATIVE
        if mpu.negative_priority(cpu):
            bits |= RULE_NO_MPU
    return bits, mpu.regions(cpu)


class Draft:
    """What a CPU is to become: reads see what was written, and nothing is done before ``commit``."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self._values: dict[str, int] = {}
        self._stacked: dict[int, bytes] = {}

    def read(self, name: str) -> int:
        value = self._values.get(name)
        return self._cpu.read(name) if value is None else value

    def write(self, name: str, value: int) -> None:
        self._values[name] = value

    def read_words(self, address: int, count: int) -> list[int]:
        """MemoryFault unless all of them are there."""
        data = self._cpu.read_memory(address, 4 * count)
        if len(data) < 4 * count:
            raise MemoryFault(address + len(data))
        if address in self._stacked:
            data = self._stacked[address]
        return [int.from_bytes(data[at : at + 4], "little") for at in range(0, 4 * count, 4)]

    def write_words(self, address: int, values: list[int]) -> None:
        self.read_words(address, len(values))
        self._stacked[address] = b"".join(value.to_bytes(4, "little") for value in values)

    def commit(self) -> None:
        """The stack pointers before what says which one is in use."""
        for address, data in self._stacked.items():
            self._cpu.write_memory(address, data)
        last = {name: self._values.pop(name) for name in ("xpsr", "control", "pc") if name in self._values}
        for name, value in (*self._values.items(), *last.items()):
            if self._cpu.read(name) != value:
                self._cpu.write(name, value)


def stack_pointer(cpu: nvic.Registers) -> str:
    """The name of the one in use."""
    return "psp" if cpu.read("control") & CONTROL_SPSEL and not nvic.in_handler(cpu) else "msp"


def enter(cpu: Cpu, exception: CpuException) -> bool:
    """``Arch.enter_exception``. False, with nothing changed, where the CPU would lock up."""
    draft = Draft(cpu)
    try:
        if exception.kind is ExceptionKind.NATIVE and exception.number == EXCEPTION_EXIT:
            _leave(draft, exception.pc | (1 if draft.read("xpsr") & T else 0))
        else:
            back = _raise(draft, exception)
            _stack_and_take(draft, back)
    except nvic.Lockup:
        return False
    draft.commit()
    return True


def interrupt(cpu: Cpu, number: int) -> None:
    """Take the exception that ``nvic.ready`` told of. Where the CPU cannot, it is in the state of lockup: it fetches
    from where nothing is, and cannot handle that."""
    draft = Draft(cpu)
    try:
        _stack_and_take(draft, draft.read("pc"))
    except nvic.Lockup:
        draft = Draft(cpu)
        nvic.change(draft, "nvic_active", nvic.HARD_FAULT, True)
        draft.write("xpsr", draft.read("xpsr") & ~(_HANDLER | thumb.IT) | nvic.HARD_FAULT | T)
        draft.write("pc", LOCKUP)
    draft.commit()


def _fault(cpu: Draft, number: int, status: int) -> None:
    cpu.write("cfsr", cpu.read("cfsr") | status)
    nvic.pend(cpu, number)


def _raise(cpu: Draft, exception: CpuException) -> int:
    """Make pending what an instruction raised; the address that is stacked."""
    kind, xpsr = exception.kind, cpu.read("xpsr")
    if kind is ExceptionKind.SYSCALL:
        nvic.pend(cpu, nvic.SVCALL)
        cpu.write("xpsr", thumb.after(xpsr))
        return exception.next_pc
    if kind is ExceptionKind.BREAKPOINT:
        nvic.pend(cpu, nvic.DEBUG_MONITOR)
    elif kind is ExceptionKind.UNDEFINED:
        _fault(cpu, nvic.USAGE_FAULT, UNDEFINSTR if xpsr & T else INVSTATE)
    elif kind is ExceptionKind.FETCH_FAULT:
        if not mpu.allows(cpu, exception.address, mpu.privileged(cpu)) & mpu.EXECUTE:
            _fault(cpu, nvic.MEM_MANAGE, IACCVIOL)
        else:
            _fault(cpu, nvic.BUS_FAULT, IBUSERR)
    elif kind in (ExceptionKind.READ_FAULT, ExceptionKind.WRITE_FAULT):
        if exception.detail is not None and exception.detail & 0x40F == _ALIGNMENT:
            _fault(cpu, nvic.USAGE_FAULT, UNALIGNED)
        elif exception.detail == _PERMISSION:
            cpu.write("mmfar", exception.address)
            _fault(cpu, nvic.MEM_MANAGE, DACCVIOL | MMARVALID)
        else:
            cpu.write("bfar", exception.address)
            _fault(cpu, nvic.BUS_FAULT, PRECISERR | BFARVALID)
    else:
        _fault(
            cpu, nvic.USAGE_FAULT, {NO_COPROCESSOR: NOCP, DIVISION_BY_ZERO: DIVBYZERO}.get(exception.number, UNDEFINSTR)
        )
    return exception.pc


def _stack_and_take(cpu: Draft, back: int) -> None:
    thread = not nvic.in_handler(cpu)
    process = stack_pointer(cpu) == "psp"
    link = _EXC_RETURN | (_TO_THREAD if thread else 0) | (_TO_PROCESS_STACK if process else 0)
    _stack(cpu, back)
    _take(cpu, link)


def _stack(cpu: Draft, back: int) -> None:
    name = stack_pointer(cpu)
    frame, xpsr = cpu.read(name), cpu.read("xpsr")
    if frame & 4 and cpu.read("ccr") & CCR_STKALIGN:
        frame -= 4
        xpsr |= _REALIGNED
    frame = frame - _FRAME & _MASK
    values = [*(cpu.read(r) for r in _FRAME_REGISTERS), back & _MASK, xpsr]
    allowed = mpu.words_allowed(cpu, frame, len(values), mpu.WRITE, mpu.privileged(cpu))
    try:
        if allowed:
            cpu.write_words(frame, values[:allowed])
        if allowed < len(values):
            cpu.write("cfsr", cpu.read("cfsr") | MSTKERR)
            nvic.pend(cpu, nvic.MEM_MANAGE, derived=True)
    except MemoryFault:
        cpu.write("cfsr", cpu.read("cfsr") | STKERR)
        nvic.pend(cpu, nvic.BUS_FAULT, derived=True)
    cpu.write(name, frame)


def _take(cpu: Draft, link: int) -> None:
    """Begin the handler of the pending exception that goes first."""
    number, _ = nvic.first_pending(cpu)
    try:
        (vector,) = cpu.read_words(cpu.read("vtor") + 4 * number & _MASK, 1)
    except MemoryFault:
        cpu.write("hfsr", cpu.read("hfsr") | nvic.HFSR_VECTTBL | nvic.HFSR_FORCED)
        nvic.pend(cpu, nvic.HARD_FAULT, derived=True)
        _take(cpu, link)
        return
    nvic.change(cpu, "nvic_active", number, True)
    nvic.change(cpu, "nvic_pending", number, False)
    xpsr = cpu.read("xpsr") & ~(_HANDLER | thumb.IT | T)
    cpu.write("xpsr", xpsr | number | (T if vector & 1 else 0))
    cpu.write("control", cpu.read("control") & ~CONTROL_SPSEL)
    cpu.write("exclusive", _MASK << 32 | _MASK)
    cpu.write("lr", link | 0xFF000000)
    cpu.write("pc", vector & ~1)


def _leave(cpu: Draft, link: int) -> None:
    """Return by ``link``, the value that was branched to."""
    number = nvic.handled(cpu)
    if number != nvic.NMI:
        cpu.write("faultmask", 0)
    wrong, base = not cpu.read("nvic_active") >> number & 1, nvic.returns_to_base(cpu)
    if not wrong:
        nvic.change(cpu, "nvic_active", number, False)
        if cpu.read("nvic_level") >> number & 1:
            nvic.change(cpu, "nvic_pending", number, True)
    to_thread, process = bool(link & _TO_THREAD), bool(link & _TO_PROCESS_STACK)
    if link & 0xF in (9, 13):
        wrong |= not base and not cpu.read("ccr") & CCR_NONBASETHRDENA
    elif link & 0xF != 1:
        wrong = True
    if wrong:
        _fault(cpu, nvic.USAGE_FAULT, INVPC)
        _take(cpu, link)
        return
    if nvic.ready(cpu) is not None:
        _take(cpu, link)
        return
    name = "psp" if to_thread and process else "msp"
    frame = cpu.read(name)
    with_privilege = not to_thread or not cpu.read("control") & CONTROL_NPRIV
    if mpu.words_allowed(cpu, frame, _FRAME // 4, mpu.READ, with_privilege) < _FRAME // 4:
        _fault(cpu, nvic.MEM_MANAGE, MUNSTKERR)
        _take(cpu, link)
        return
    try:
        *values, back, xpsr = cpu.read_words(frame, _FRAME // 4)
    except MemoryFault:
        _fault(cpu, nvic.BUS_FAULT, UNSTKERR)
        _take(cpu, link)
        return
    for register, value in zip(_FRAME_REGISTERS, values, strict=True):
        cpu.write(register, value)
    cpu.write("pc", back & ~1)
    cpu.write(name, frame + _FRAME & _MASK | (4 if xpsr & _REALIGNED else 0))
    control = cpu.read("control") & ~CONTROL_SPSEL
    cpu.write("control", control | (CONTROL_SPSEL if process else 0))
    cpu.write("xpsr", xpsr & ~(_REALIGNED | _GE | 1 << 20))
    if to_thread == nvic.in_handler(cpu):
        # It does not fit EXC_RETURN: this is found behind the unstacking.
        _fault(cpu, nvic.USAGE_FAULT, INVPC)
        _stack(cpu, back & ~1)
        _take(cpu, link)
        return
    cpu.write("exclusive", _MASK << 32 | _MASK)
