"""What arch code may do to a CPU."""

from __future__ import annotations

from typing import Literal, Protocol

from rrgdb.errors import Error

ByteOrder = Literal["little", "big"]


class Cpu(Protocol):
    """What arch code may do to a CPU; every engine offers it. Values are unsigned ints."""

    @property
    def icount(self) -> int: ...
    def read(self, name: str) -> int:
        """Read a register by its GDB name or by a name out of ``Arch.system_registers`` or ``hidden_registers``."""

    def write(self, name: str, value: int) -> None: ...
    def read_memory(self, address: int, length: int) -> bytes:
        """Virtual address; raises ``MemoryFault``."""

    def write_memory(self, address: int, data: bytes) -> None: ...


class MemoryFault(Error):
    """A debugger or emulation access to memory that is not there; ``address`` is the first bad byte."""

    def __init__(self, address: int) -> None:
        super().__init__(f"no memory at {address:#x}")
        self.address = address
