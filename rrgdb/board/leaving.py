"""Where a guest leaves what is modelled: told as notices. Nothing of it is state, and no run depends on it."""

from __future__ import annotations

from rrgdb.arch.base import CpuException
from rrgdb.board.cause import of_access, of_death, of_wait, spins
from rrgdb.board.device import Device
from rrgdb.board.spec import BoardSpec
from rrgdb.engine.base import Engine, ReadCallback, WriteCallback
from rrgdb.guest import Notices

SPIN = 10_000
"""instructions behind which a branch to itself is one"""
RESTARTS, BETWEEN_RESTARTS = 3, 10_000_000
"""so many restarts, so many instructions apart at most, are a loop"""


class Leaving:
    """``notices`` get what it notices, each once."""

    def __init__(self, notices: Notices, engine: Engine, spec: BoardSpec) -> None:
        self._notices = notices
        self._engine = engine
        self._spec = spec
        self._restarts: list[int] = []
        self._seen = (0, 0)

    def waits(self, code: bytes) -> None:
        """The halt instruction of these bytes waits for what only an input can bring."""
        text = of_wait(code, self._engine, self._spec)
        if text:
            self._notices.add("wait", self._engine.pc, f"{text}: the guest goes on", leaves=not self._spec.lines)

    def access(self, exception: CpuException) -> tuple[int, str] | None:
        """Physical address, and what to say, of an access that nobody answers; it was not made yet."""
        address = of_access(exception, self._engine, self._spec)
        return None if address is None else (address, of_death(exception, self._engine, self._spec))

    def handled(self, access: tuple[int, str] | None) -> None:
        """The guest has a handler for that."""
        if access is not None:
            address, text = access
            self._notices.add("access", address, f"{text}: the guest takes an exception")

    def restarts(self) -> None:
        here = self._engine.icount
        before = [at for at in self._restarts if at < here]
        self._restarts = [*before[1 - RESTARTS :], here]
        if len(self._restarts) == RESTARTS and here - self._restarts[0] < RESTARTS * BETWEEN_RESTARTS:
            self._notices.add("restart", 0, f"the machine has restarted {RESTARTS} times in short succession")

    def look(self) -> None:
        """Asked now and then, between two instructions."""
        (pc, icount), here = self._seen, (self._engine.pc, self._engine.icount)
        if here[0] != pc or here[1] < icount:
            self._seen = here
        elif here[1] - icount >= SPIN and spins(self._engine):
            self._notices.add("spin", pc, f"at pc {pc:#x}: a branch to itself, and interrupts are off: it never ends")

    def accesses(self, device: Device, base: int, first: int) -> tuple[ReadCallback, WriteCallback]:
        """A device's own, from offset ``first`` on; it stands at ``base``."""
        registers = getattr(device, "REGISTERS", ())
        if not first and not registers:
            return device.read, device.write
        known = frozenset(offset for places in registers for offset in places) if registers else None

        def check(offset: int, what: str, then: str) -> None:
            if known is not None and offset not in known:
                at, icount = base + offset, self._engine.icount - 1
                text = f"at icount {icount}: {what} {at:#x}, where device {device.name} has no register: {then}"
                self._notices.add("register", at, text)

        def read(offset: int, size: int) -> int:
            check(first + offset, "load of", "it is 0")
            return device.read(first + offset, size)

        def write(offset: int, size: int, value: int) -> None:
            check(first + offset, "store to", "it is ignored")
            device.write(first + offset, size, value)

        return read, write
