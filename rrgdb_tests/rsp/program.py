"""The machine of ``fake`` as a program on Linux for AArch64 that has an auxiliary vector, libraries, system calls and
files. Every third instruction is a system call, WRITE and READ in turn."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rrgdb.rsp.debuggee import (
    DebuggeeError,
    Faces,
    FileStatus,
    LinkMap,
    Namespace,
    OpenFile,
    RegisterInfo,
    StopReason,
    StopReply,
)
from rrgdb_tests.rsp.fake import BASE, PC, SIZE, FakeDebuggee

REGISTERS = (*(f"x{n}" for n in range(31)), "sp", "pc", "cpsr")
SP, CPSR = 31, 33
READ, WRITE = 63, 64
AUXV = struct.pack("<6Q", 6, 4096, 9, BASE, 0, 0)
"""AT_PAGESZ, AT_ENTRY, AT_NULL"""
LINK_MAPS = (
    LinkMap(0x1000, 0, b"/bin/program", 0, 0x8000_4000),
    LinkMap(0x1100, 0x1000, b"", 0x9000_0000, 0x9000_0100),
    LinkMap(0x1200, 0x1100, b'/lib/a "quoted" & <odd>\x01\xff.so', 0xA000_0000, 0xA000_0200),
    LinkMap(0x1300, 0x1200, b"/lib/ld-linux.so", 0xFFFF_0000_0000_0000, 0xFFFF_0000_0000_0300),
)
"""the program, what has no name as the vDSO, two libraries"""
ANOTHER = (LinkMap(0x2000, 0, b"/lib/other.so", 0xB000_0000, 0xB000_0400),)
"""a namespace of dlmopen"""
R_DEBUG, ANOTHER_R_DEBUG = 0x800, 0x900


class _Opened:
    def __init__(self, program: Program, content: bytes) -> None:
        self._program = program
        self._content = content
        self._closed = False

    def read(self, offset: int, length: int) -> bytes:
        assert not self._closed
        return self._content[offset : offset + length]

    def status(self) -> FileStatus:
        assert not self._closed
        return FileStatus(0o100644, len(self._content), ino=(7 << 32) + 8, blocks=1, mtime=1_700_000_000)

    def close(self) -> None:
        assert not self._closed
        self._closed = True
        self._program.open_files -= 1


class Program(FakeDebuggee):
    def __init__(self, end: int = 30_000) -> None:
        super().__init__(end)
        self.caught: frozenset[int] | None = frozenset()
        self.chains: dict[int, Sequence[LinkMap]] = {R_DEBUG: LINK_MAPS}
        """by namespace"""
        self.content = {b"/etc/motd": bytes(range(256)) * 1000, b"/empty": b""}
        self.links = {b"/proc/self/exe": b"/bin/program"}
        self.open_files = 0

    @property
    def faces(self) -> Faces:
        return replace(super().faces, auxv=self, libraries=self, syscalls=self, files=self)

    @property
    def registers(self) -> Sequence[RegisterInfo]:
        return [RegisterInfo(name, 32 if name == "cpsr" else 64, name in ("pc", "sp")) for name in REGISTERS]

    def target_xml(self) -> str:
        regs = "".join(f'<reg name="{register.name}" bitsize="{register.bits}"/>' for register in self.registers)
        return (
            '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">'
            "<architecture>aarch64</architecture><osabi>GNU/Linux</osabi>"
            f'<feature name="org.gnu.gdb.aarch64.core">{regs}</feature></target>'
        )

    def _value(self, thread: int, number: int) -> int:
        return {SP: BASE + SIZE, PC: super()._value(thread, PC)}.get(number, 0)

    def read_registers(self, thread: int) -> bytes:
        return b"".join(self.read_register(thread, number) for number in range(len(REGISTERS)))

    def read_register(self, thread: int, number: int) -> bytes:
        return super().read_register(thread, number)[: 4 if number == CPSR else 8]

    def write_register(self, thread: int, number: int, data: bytes) -> None:
        self.registers_written[thread, number] = data

    def auxv(self) -> bytes:
        return AUXV

    def namespaces(self) -> Iterable[Namespace]:
        return [Namespace(address, chain[0].address) for address, chain in self.chains.items()]

    def link_maps(self, start: int) -> Iterable[LinkMap]:
        for chain in self.chains.values():
            for number, link_map in enumerate(chain):
                if start == link_map.address:
                    return chain[number:]
        raise DebuggeeError(f"no memory at {start:#x}", 14)

    def catch_syscalls(self, numbers: frozenset[int] | None) -> None:
        self.caught = numbers

    def _hit(self, thread: int, back: bool) -> StopReply | None:
        calls, at = divmod(self.icount - 2, 3)
        number = (WRITE, READ)[calls % 2]
        if not back and at < 2 and calls >= 0 and (self.caught is None or number in self.caught):
            return StopReply((StopReason.SYSCALL_ENTRY, StopReason.SYSCALL_RETURN)[at], syscall=number)
        return super()._hit(thread, back)

    def open(self, path: bytes) -> OpenFile:
        if path not in self.content:
            raise DebuggeeError(f"there is no {path!r}", 2)
        self.open_files += 1
        return _Opened(self, self.content[path])

    def readlink(self, path: bytes) -> bytes:
        if path not in self.links:
            raise DebuggeeError(f"{path!r} is no link", 22 if path in self.content else 2)
        return self.links[path]

    def detached(self, *, resume: bool) -> None:
        super().detached(resume=resume)
        self.caught = frozenset()
