"""A board as a guest: engine, RAM and devices together, with traps served and exceptions delivered."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

from rrgdb.arch.base import LINES, CpuException, ExceptionKind, IllegalInstruction, Trap
from rrgdb.arch.cpu import MemoryFault
from rrgdb.board.cause import of_death, of_wait
from rrgdb.board.device import RESET_STATUS, Console, Device, Memory, Slots
from rrgdb.board.devices.state import StatefulDevice
from rrgdb.board.devices.virtio.blk import VirtioBlk
from rrgdb.board.devices.virtio.console import VirtioConsole
from rrgdb.board.devices.virtio.disk import Disk
from rrgdb.board.devices.virtio.earlier import EarlierVirtioBlk
from rrgdb.board.devices.virtio.plugs import DISK, disk_device, other_device
from rrgdb.board.firmware import psci
from rrgdb.board.firmware.image import Placed
from rrgdb.board.firmware.semihosting import ABIS, SOURCE, Semihosting
from rrgdb.board.hardware import BoardHardware
from rrgdb.board.leaving import Leaving
from rrgdb.board.lines import Lines
from rrgdb.board.spec import BoardSpec, Clock
from rrgdb.board.timers import NEVER, Timer, Timers
from rrgdb.engine.base import Engine, Exit, ExitKind, ReadCallback, WriteCallback
from rrgdb.guest import End, Notices
from rrgdb.host import Host

_HEAD = struct.Struct("<BBB")
_LENGTH = struct.Struct("<I")
_SLEPT_BYTES = 8
_PLAIN, _WITH_EVENTS, _WITH_SLEEP = 1, 2, 3
"""versions of the saved state: without raised lines and timers that are set, with them, and with the time slept"""
_NO_END, _EXITED, _SIGNALLED, _HALTED = range(4)
_AT_THE_NEXT = (ExitKind.LIMIT, ExitKind.BREAKPOINT, ExitKind.RANGE, ExitKind.INTERRUPT, ExitKind.UNMASKED)
"""exits before an instruction: the engine tells again of whatever is still so"""
SIGTRAP = 5
_PIECE = 1 << 12
"""bytes of zeros that are written at a time"""

_END_KINDS = {_EXITED: "exit", _SIGNALLED: "signal", _HALTED: "halt"}
_END_CODES = {kind: code for code, kind in _END_KINDS.items()}


class Board:
    """One machine. Part of ``rrgdb.guest.Guest``; also the ``Machine`` of its devices.

    Position n is the state before instruction number n. A retired instruction and a taken exception count one each.
    """

    def __init__(
        self,
        spec: BoardSpec,
        engine: Engine,
        placed: Placed,
        host: Host,
        disks: Sequence[Disk] = (),
        clock: Clock = Clock(),  # noqa: B008 - it is frozen
        *,
        reboot: bool = True,
        slots: Sequence[str] | None = None,
        legacy: bool = False,
    ) -> None:
        """``disks``: at most ``spec.disks``. ``reboot``: a reset restarts the machine, where the board does that.
        ``slots``: words for what is plugged into the virtio slots, in their order: ``disk`` for each disk, and those
        of ``virtio.plugs.OTHERS``; None: the disks. ``legacy``: the slots are those of version 1."""
        self.spec = spec
        self.engine = engine
        self.host = host
        self.arch = engine.arch
        self.end: End | None = None
        self.cause = ""
        self.notices = Notices()
        self._leaving = Leaving(self.notices, engine, spec)
        self.idle: Callable[[], None] = lambda: None
        """called when the CPU waits for an interrupt: a live host may rest a moment"""
        self.debugged = False
        self._trapped = False
        self._due: list[Callable[[], None]] = []
        self._timers = Timers(lambda ns: engine.limit(max(self._position_of(ns), engine.icount)))
        self._shift = clock.shift
        self._slept = 0
        self._reboot = reboot and spec.restarts
        self._lines = Lines(spec.lines)
        self._placed = placed
        for base, size in placed.ram.regions:
            engine.map_ram(base, size)
        self.devices: list[Device] = []
        self.disks: list[VirtioBlk | EarlierVirtioBlk] = []
        self._others: list[Device] = []
        words, unplugged = iter([DISK] * len(disks) if slots is None else slots), iter(disks)
        for place in spec.placements:
            device = place.factory(place.name, self)
            if isinstance(device, Slots):
                for slot, word in zip(place.slots, words, strict=False):
                    line = None if place.line is None else place.line + slot
                    device.plug(slot, self._plugged(word, unplugged, line, legacy))
            else:
                self.devices.append(device)
            if place.space == "rom":
                continue
            attach = engine.map_mmio if place.space == "mmio" else engine.map_ports
            for offset, size in place.pieces:
                attach(place.base + offset, size, *self._leaving.accesses(device, place.base, offset))
        self.consoles: tuple[str, ...] = (spec.serial,)
        self._semihosting: Semihosting | None = None
        if self.arch.name in ABIS:
            self.consoles += (SOURCE,)
            console = None if spec.semihosting_input else self._console()
            self._semihosting = Semihosting(host, self.arch, placed.args, placed.heap, placed.stack, console)
        self.consoles += tuple(device.name for device in self._others if isinstance(device, VirtioConsole))
        self._cpu_timer: Timer | None = None
        if self.arch.timers is not None and spec.cpu_timers:
            self._cpu_timer = self.timer("cpu", lambda _due: self._update_cpu_timers())
        self._place()
        self._cpu_at_start = engine.save()

    def _plugged(self, word: str, disks: Iterator[Disk], line: int | None, legacy: bool) -> Device:
        if word == DISK:
            disk = disk_device(self, next(disks), line, legacy=legacy)
            self.disks.append(disk)
            return disk
        self._others.append(other_device(word, len(self._others), self, line, legacy=legacy))
        return self._others[-1]

    def _place(self) -> None:
        """Images into RAM, and the CPU where it begins."""
        engine, placed = self.engine, self._placed
        for segment in placed.segments:
            engine.write_memory(segment.paddr, segment.data)
        self.arch.reset(engine, placed.entry, placed.stack[1])
        for name, value in placed.registers.items():
            engine.write(name, value)

    def _console(self) -> Console:
        for device in self.devices:
            if device.name == self.spec.serial and isinstance(device, Console):
                return device
        raise ValueError(f"board {self.spec.name}: no console of the name {self.spec.serial}")

    # -- Machine and TrapHost --------------------------------------------------------------------

    @property
    def cpus(self) -> Sequence[Engine]:
        return (self.engine,)

    @property
    def hardware(self) -> BoardHardware:
        return BoardHardware(self.spec, self.engine, self.devices, self._lines)

    @property
    def icount(self) -> int:
        """Number of the instruction that is executing (devices are called from within one)."""
        return max(self.engine.icount - 1, 0)

    @property
    def cpu(self) -> Engine:
        return self.engine

    def virtual_ns(self) -> int:
        return (self.engine.icount << self._shift) + self._slept

    def _position_of(self, ns: int) -> int:
        """The first position at which virtual time is there, if nothing sleeps before."""
        return -(-(ns - self._slept) >> self._shift)

    def power_off(self, status: int) -> None:
        if self.end is None:
            self.end = End("exit", status & 0xFF)
        self.engine.limit(self.engine.icount)

    def restart(self) -> None:
        if self._reboot:
            self._leaving.restarts()
            self.after_instruction(self._reset)
        else:
            self.power_off(RESET_STATUS if not self.spec.restarts else 0)

    def _reset(self) -> None:
        # The CPU first: devices drive its inputs.
        self.engine.reset(self._cpu_at_start)
        for part in self._parts():
            if not isinstance(part, StatefulDevice) or part.RESETS:
                part.reset()
        self._lines.reset()
        for segment in self._placed.segments:
            if segment.data:
                self._clear(segment.paddr + len(segment.data), segment.end)
        self._place()
        self._update_cpu_timers()

    def _clear(self, start: int, end: int) -> None:
        """Zeros into RAM, without touching pages that hold nothing else."""
        for at in range(start, end, _PIECE):
            length = min(_PIECE, end - at)
            if any(self.engine.ram.read(at, length)):
                self.engine.write_memory(at, bytes(length))

    def interrupt(self, line: str, level: bool) -> None:
        interrupts = self.arch.interrupts
        if interrupts is None:
            raise ValueError(f"{self.arch.name} has no interrupt input {line}")
        bit, levels = 1 << interrupts.lines[line], self.engine.read(LINES)
        if bool(levels & bit) != level:
            self.engine.write(LINES, levels ^ bit)
            if level:
                self.engine.limit(self.engine.icount)

    def notice(self, text: str) -> None:
        self.notices.add("notice", text, text, leaves=False)

    def after_instruction(self, work: Callable[[], None]) -> None:
        self._due.append(work)
        self.engine.limit(self.engine.icount)

    def timer(self, name: str, callback: Callable[[int], None]) -> Timer:
        return self._timers.add(name, callback)

    def memory_behind(self, device: str, read: ReadCallback, write: WriteCallback) -> Memory:
        place = next((place for place in self.spec.roms if place.name == device), None)
        if place is None:
            raise ValueError(f"board {self.spec.name} gives no memory to {device}")
        return self.engine.map_rom(place.base, place.size, read, write)

    @property
    def configuration(self) -> Mapping[int, bytes]:
        return self._placed.configuration

    def line_of(self, device: str) -> int:
        line = next((place.line for place in self.spec.placements if place.name == device), None)
        if line is None:
            raise ValueError(f"board {self.spec.name} gives no interrupt line to {device}")
        return line

    def irq(self, line: int, level: bool) -> None:
        self._lines.set(line, level)

    def is_raised(self, line: int) -> bool:
        return self._lines.is_high(line)

    def attach_irqs(self, receiver: Callable[[int, bool], None], *, repeated: bool = False) -> None:
        self._lines.attach(receiver, repeated=repeated)

    def check_physical(self, address: int, length: int) -> None:
        at = address
        while at < address + length:
            at += self.engine.ram.locate(at)[1]
        for rom in self.spec.roms:
            if address < rom.end and rom.base < address + length:
                raise MemoryFault(max(address, rom.base))

    def read_physical(self, address: int, length: int) -> bytes:
        data = self.engine.ram.read(address, length)
        if len(data) < length:
            raise MemoryFault(address + len(data))
        return data

    def write_physical(self, address: int, data: bytes) -> None:
        self.check_physical(address, len(data))
        self.engine.pages_changed(self.engine.ram.write(address, data))

    def resurrect(self) -> None:
        self.end = None

    def entropy(self, length: int) -> bytes:
        return self.host.entropy("cpu", length)

    # -- running ---------------------------------------------------------------------------------

    def run_until(self, icount: int) -> Exit:
        """As the engine's, with traps and exceptions done; ``self.end`` is set when the guest has ended."""
        engine, timers = self.engine, self._timers
        self._leaving.look()
        while self.end is None:
            before = engine.icount
            if before < icount and self._take_interrupt():
                self._do_due(before)
                continue
            engine.keep_time(self._shift, self._slept)
            # A timer whose time has come waits for an instruction.
            exit_ = engine.run_until(min(icount, max(self._position_of(timers.next), before + 1)))
            if self._do_due(before) and exit_.kind in _AT_THE_NEXT:
                # Watches may see what was done.
                continue
            before = engine.icount
            if exit_.kind is ExitKind.TRAP:
                self._trap(exit_)
            elif exit_.kind is ExitKind.EXCEPTION and exit_.exception is not None:
                self._raise(exit_.exception)
            elif exit_.kind is ExitKind.HALT:
                self._halt(exit_)
            elif exit_.kind is ExitKind.UNMASKED:
                if before >= icount:
                    return Exit(ExitKind.LIMIT)
                continue
            elif exit_.kind is not ExitKind.LIMIT or (self.end is None and before >= icount):
                return exit_
            self._do_due(before)
            if self._trapped:
                self._trapped = False
                return Exit(ExitKind.BREAKPOINT_TRAP)
        return Exit(ExitKind.LIMIT)

    def _do_due(self, before: int) -> bool:
        """Do what waits for the end of an instruction, the last one since position ``before``; whether there was
        anything. A guest that has ended has no timers that run out."""
        due = self._due
        if due:
            self._due = []
            for work in due:
                work()
        now = self.virtual_ns()
        ran_out = self._timers.next <= now and self.engine.icount != before and self.end is None
        if ran_out:
            self._timers.run_out(now, lambda: self.end is not None)
        return bool(due) or ran_out

    def _take_interrupt(self) -> bool:
        """Enter the handler of an interrupt that comes before the next instruction. Whether there was one; if one is
        masked, the engine will tell."""
        interrupts, engine = self.arch.interrupts, self.engine
        if interrupts is None:
            return False
        raised = interrupts.raised(engine)
        if not raised:
            engine.await_unmasked(0)
            return False
        number = interrupts.pending(engine)
        if number is None:
            engine.await_unmasked(raised)
            return False
        interrupts.enter(engine, number)
        engine.count_one()
        return True

    def _update_cpu_timers(self) -> None:
        """The outputs of the CPU's own timers follow its registers and the time."""
        timer, timers = self._cpu_timer, self.arch.timers
        if timer is None or timers is None:
            return
        soonest = NEVER
        for name, (high, rises) in timers.outputs(self.engine, self).items():
            if name in self.spec.cpu_timers:
                self.irq(self.spec.cpu_timers[name], high)
                soonest = min(soonest, NEVER if rises is None else rises)
        if soonest < NEVER:
            timer.at(soonest)
        else:
            timer.cancel()

    def _trap(self, exit_: Exit) -> None:
        engine, trap = self.engine, exit_.trap
        if self.arch.executes is not None and not self.arch.executes(engine, exit_.code):
            self.arch.step_over(engine, len(exit_.code))
            engine.count_one()
            return
        if trap is Trap.SEMIHOST:
            if self._semihosting is None or not self._semihosting.is_semihosting_call(engine):
                self._raise(self._exception(ExceptionKind.BREAKPOINT, exit_))
                return
            # The call is instruction number ``icount``: devices and answers see it as the one executing.
            engine.count_one()
            self._semihosting.serve(engine, self, len(exit_.code))
        elif trap is Trap.HYPERCALL:
            engine.count_one()
            served = psci.serve(engine, self, self.arch, self.spec.psci)
            if served is psci.Served.REFUSED:
                engine.uncount_one()
                self._raise(self._exception(ExceptionKind.UNDEFINED, exit_))
            elif served is psci.Served.WAITS:
                # As the halt instruction does, before it counts.
                engine.uncount_one()
                slept = self._wait(exit_.code)
                engine.count_one()
                self._slept += slept
            elif served is psci.Served.OFF:
                self._halt(exit_)
        elif trap is Trap.HALT:
            if self.arch.may_halt is not None and not self.arch.may_halt(engine):
                self._raise(self._exception(ExceptionKind.UNDEFINED, exit_))
                return
            if self.arch.halt_waits_forever:
                self._halt(exit_)
                return
            halts = self.arch.halts
            slept = self._wait(exit_.code, gives_way=halts is not None and not halts(engine, exit_.code))
            self.arch.step_over(engine, len(exit_.code))
            engine.count_one()
            self._slept += slept
        elif trap is not None:
            # Counters show the instructions before this one; answers carry the number of this one.
            before = trap is Trap.ENTROPY
            if before:
                engine.count_one()
            try:
                self.arch.emulate(engine, trap, exit_.code, self)
            except IllegalInstruction as e:
                if before:
                    engine.uncount_one()
                kind = ExceptionKind.UNDEFINED if e.number is None else ExceptionKind.NATIVE
                self._raise(self._exception(kind, exit_, -1 if e.number is None else e.number, e.detail))
                return
            step = None if self.arch.single_step is None else self.arch.single_step(engine)
            if step is not None:
                # It belongs to the instruction: its entry counts instead.
                if before:
                    engine.uncount_one()
                self._raise(CpuException(ExceptionKind.NATIVE, step, engine.pc, engine.pc))
            elif not before:
                engine.count_one()
            timers = self.arch.timers
            if trap is Trap.COUNTER and timers is not None and timers.written_by(engine, exit_.code):
                self._update_cpu_timers()

    def _wait(self, code: bytes, *, gives_way: bool = False) -> int:
        """The CPU waits for an interrupt, or only ``gives_way``, by the instruction of these bytes: how long it sleeps,
        in virtual nanoseconds. That is until the next timer runs out, whoever that is for, at most."""
        engine, interrupts = self.engine, self.arch.interrupts
        wakes = interrupts is not None and interrupts.wakes(engine)
        if not self.spec.sleeps or (self._timers.next == NEVER and not wakes):
            # Only an input could end it.
            self._leaving.waits(code)
            self.idle()
            return 0
        if wakes or gives_way:
            return 0
        # The instruction itself takes its time.
        rest = self._timers.next - self.virtual_ns() - (1 << self._shift)
        return self.host.sleep("cpu", engine.icount, rest) if rest > 0 else 0

    def _halt(self, exit_: Exit) -> None:
        self.cause = of_wait(exit_.code, self.engine, self.spec)
        self.end = End("halt", 0)

    def _exception(self, kind: ExceptionKind, exit_: Exit, number: int = -1, detail: int | None = None) -> CpuException:
        pc = self.engine.pc
        return CpuException(kind, number, pc, pc + len(exit_.code), detail=detail)

    def _raise(self, exception: CpuException) -> None:
        engine = self.engine
        access = self._leaving.access(exception)
        if self.arch.enter_exception(engine, exception):
            engine.count_one()
            self._leaving.handled(access)
        elif exception.kind is ExceptionKind.BREAKPOINT and self.debugged:
            self._trapped = True
        else:
            self.cause = of_death(exception, engine, self.spec)
            self.end = End("signal", self.arch.exception_signal(exception))

    # -- state -----------------------------------------------------------------------------------

    def _parts(self) -> list[Device | Semihosting]:
        return [*self.devices, *([self._semihosting] if self._semihosting else []), *self.disks, *self._others]

    def save_devices(self) -> bytes:
        """Everything but RAM and CPU; canonical: equal states give equal bytes."""
        code = _NO_END if self.end is None else _END_CODES[self.end.kind]
        states = [part.save() for part in self._parts()]
        events = [self._lines.save(), self._timers.save()]
        version = _WITH_SLEEP if self._slept else _WITH_EVENTS if any(events) else _PLAIN
        if version != _PLAIN:
            states += events
        if version == _WITH_SLEEP:
            states.append(self._slept.to_bytes(_SLEPT_BYTES, "little"))
        head = _HEAD.pack(version, code, 0 if self.end is None else self.end.value)
        return head + b"".join(_LENGTH.pack(len(state)) + state for state in states)

    def load_devices(self, state: bytes) -> None:
        """ValueError if the bytes are not what ``save_devices`` of this board returns."""
        if len(state) < _HEAD.size:
            raise ValueError("board: state too short")
        version, code, value = _HEAD.unpack_from(state)
        if not _PLAIN <= version <= _WITH_SLEEP or code > _HALTED:
            raise ValueError(f"board: expected a state version from {_PLAIN} to {_WITH_SLEEP}, got {version}")
        at = _HEAD.size
        for part in self._parts():
            of, at = _next_part(state, at, "device", part.name)
            part.load(of)
        lines = timers = slept = b""
        if version != _PLAIN:
            lines, at = _next_part(state, at, "interrupt lines")
            timers, at = _next_part(state, at, "timers")
            if version == _WITH_EVENTS and not lines and not timers:
                raise ValueError("board: expected interrupt lines that are raised, or timers that are set")
        if version == _WITH_SLEEP:
            slept, at = _next_part(state, at, "time slept")
            if len(slept) != _SLEPT_BYTES or not any(slept):
                raise ValueError(f"board: expected {_SLEPT_BYTES} bytes of time slept that are not 0")
        if at != len(state):
            raise ValueError(f"board: {len(state) - at} bytes after the last part")
        if lines or self._lines.raised:
            self._lines.load(lines)
        if timers or self._timers.next != NEVER:
            self._timers.load(timers)
        self._slept = int.from_bytes(slept, "little")
        self._due.clear()
        self.end = None if code == _NO_END else End(_END_KINDS[code], value)


def _next_part(state: bytes, at: int, *what: str) -> tuple[bytes, int]:
    """The part of a saved state whose length stands at ``at``, and where the next one begins. ValueError."""
    if len(state) < at + _LENGTH.size:
        raise ValueError(f"board: state ends before {' '.join(what)}")
    (length,) = _LENGTH.unpack_from(state, at)
    begin = at + _LENGTH.size
    if len(state) < begin + length:
        raise ValueError(f"board: state of {' '.join(what)} is cut short")
    return state[begin : begin + length], begin + length
