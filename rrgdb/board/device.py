"""What a device is: memory-mapped or port registers with state that saves and loads completely."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from rrgdb.arch.cpu import Cpu
from rrgdb.board.timers import Timer
from rrgdb.host import Host

RESET_STATUS = 254
"""status of a guest that ended itself by asking for a reset: machines are not restarted"""


class Memory(Protocol):
    """Memory of the machine that a device stands before. While it is shown, the guest reads and executes it in place,
    and only its stores come to the device; while it is hidden, its reads do as well. The machine saves what it holds.
    """

    @property
    def size(self) -> int:
        """In bytes."""

    def read(self, offset: int, length: int) -> bytes: ...
    def write(self, offset: int, data: bytes) -> None:
        """Change it, after an instruction only."""

    def show(self, shown: bool) -> None:
        """After an instruction, or when a state is loaded, only. At first it is shown."""


class Machine(Protocol):
    """What the board offers its devices."""

    @property
    def host(self) -> Host: ...
    @property
    def cpu(self) -> Cpu:
        """The CPU, for devices that are a part of it."""

    @property
    def icount(self) -> int:
        """Number of the instruction that is executing."""

    def virtual_ns(self) -> int:
        """Virtual time in nanoseconds: a function of the icount and of what the CPU has slept."""

    def power_off(self, status: int) -> None:
        """The guest ends after the current instruction has retired. Idempotent: the first status counts."""

    def restart(self) -> None:
        """Reset the machine after the current instruction has retired: devices, CPU and images, with the zeros behind
        them, as at the start; the rest of RAM and the time stay."""

    def interrupt(self, line: str, level: bool) -> None:
        """Raise or lower an interrupt input of the CPU, by its name in ``Interrupts.lines``. The CPU saves the
        levels."""

    def notice(self, text: str) -> None:
        """The user should know, once, what the guest does: one line."""

    def after_instruction(self, work: Callable[[], None]) -> None:
        """Do ``work`` once the current instruction has retired, as a part of it: from within one, RAM cannot be
        written."""

    def timer(self, name: str, callback: Callable[[int], None]) -> Timer:
        """A timer of the device, to be made with the device, by a name that nobody else has: the device's, or one that
        begins with it. ``callback`` gets the virtual nanoseconds that it was set to, and may do what
        ``after_instruction`` may. Whether it is set, and to when, is saved by the machine."""

    def memory_behind(
        self, device: str, read: Callable[[int, int], int], write: Callable[[int, int, int], None]
    ) -> Memory:
        """The memory that the board gives to a device, to be asked for once, when the device is made. ``read`` and
        ``write`` are the device's. ValueError if it gives none."""

    @property
    def configuration(self) -> Mapping[int, bytes]:
        """What the machine was started with, for firmware: the items of fw_cfg by their keys."""

    def line_of(self, device: str) -> int:
        """Number of the interrupt line that the board gives to a device. ValueError if it gives none."""

    def irq(self, line: int, level: bool) -> None:
        """Raise or lower an interrupt line. The machine saves the levels."""

    def is_raised(self, line: int) -> bool:
        """The level of an interrupt line."""

    def attach_irqs(self, receiver: Callable[[int, bool], None], *, repeated: bool = False) -> None:
        """For the one interrupt controller: ``receiver(line, level)`` hears of each change of a level, from within
        ``irq``; with ``repeated``, of lines that are raised while they are high, too. Not when a state is loaded: the
        controller has a state of its own."""

    def check_physical(self, address: int, length: int) -> None:
        """MemoryFault unless all of the range is RAM."""

    def read_physical(self, address: int, length: int) -> bytes:
        """Guest-physical RAM; MemoryFault unless all of the range is there."""

    def write_physical(self, address: int, data: bytes) -> None:
        """Write guest-physical RAM, after an instruction only; with MemoryFault nothing is written."""


class Device(Protocol):
    """``read``/``write``: ``offset`` from the device's base in bytes, ``size`` 1, 2 or 4 (an 8-byte access comes as two
    4-byte ones), values unsigned. Unknown offsets read 0 and ignore writes, as QEMU's do.

    ``save`` returns the whole state (deterministic bytes); ``load`` takes just such bytes and raises
    ``ValueError`` on any other. ``reset`` is the power-on state.
    """

    name: str

    def reset(self) -> None: ...
    def read(self, offset: int, size: int) -> int: ...
    def write(self, offset: int, size: int, value: int) -> None: ...
    def save(self) -> bytes: ...
    def load(self, state: bytes) -> None: ...


@runtime_checkable
class Slots(Device, Protocol):
    """A device whose registers are those of the devices that are plugged into it. It has no state of its own."""

    def plug(self, slot: int, device: Device) -> None:
        """Put a device into a slot. The machine saves and loads its state."""


@runtime_checkable
class Described(Protocol):
    """A device that tells a user about itself."""

    def describe(self) -> Sequence[str]:
        """Its state in a few lines; nothing changes."""


@runtime_checkable
class Console(Protocol):
    """A device that receives what the user types. Semihosting takes from it what the guest has not read yet."""

    def peek(self, most: int) -> bytes:
        """The next bytes that the guest would read, at most so many."""

    def take(self, count: int) -> None:
        """The guest has read so many of them: as many reads of the data register."""


DeviceFactory = Callable[[str, Machine], Device]
"""(name, machine) -> device in its power-on state"""
