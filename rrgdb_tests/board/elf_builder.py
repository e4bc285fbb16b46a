"""Tiny ELF files, with every field open to damage."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

EM_386, EM_MIPS, EM_ARM, EM_X86_64, EM_AARCH64, EM_RISCV = 3, 8, 40, 62, 183, 243
ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
PT_LOAD, PT_INTERP, PT_NOTE = 1, 3, 4


@dataclass
class Seg:
    """A program header; ``offset``, ``filesz`` and ``memsz`` follow from ``data`` unless given."""

    vaddr: int
    data: bytes = b""
    paddr: int | None = None
    memsz: int | None = None
    type: int = PT_LOAD
    offset: int | None = None
    filesz: int | None = None


@dataclass
class Elf:
    """Header fields by their names in the specification without ``e_``."""

    segments: list[Seg] = field(default_factory=list)
    entry: int = 0
    machine: int = EM_RISCV
    bits: int = 64
    type: int = ET_EXEC
    encoding: int = 1
    phnum: int | None = None
    phoff: int | None = None
    phentsize: int | None = None

    def build(self) -> bytes:
        wide = self.bits == 64
        order = "<" if self.encoding == 1 else ">"
        ehsize, entsize = (64, 56) if wide else (52, 32)
        headers, body = b"", b""
        start = ehsize + entsize * len(self.segments)
        for seg in self.segments:
            offset = start + len(body) if seg.offset is None else seg.offset
            filesz = len(seg.data) if seg.filesz is None else seg.filesz
            memsz = filesz if seg.memsz is None else seg.memsz
            paddr = seg.vaddr if seg.paddr is None else seg.paddr
            if wide:
                fields = (seg.type, 7, offset, seg.vaddr, paddr, filesz, memsz, 4)
                headers += struct.pack(order + "IIQQQQQQ", *fields)
            else:
                fields = (seg.type, offset, seg.vaddr, paddr, filesz, memsz, 7, 4)
                headers += struct.pack(order + "8I", *fields)
            body += seg.data
        ident = b"\x7fELF" + bytes([2 if wide else 1, self.encoding, 1]) + bytes(9)
        phnum = len(self.segments) if self.phnum is None else self.phnum
        phoff = ehsize if self.phoff is None else self.phoff
        phentsize = entsize if self.phentsize is None else self.phentsize
        head = struct.pack(order + "HHI", self.type, self.machine, 1)
        head += struct.pack(order + ("QQQ" if wide else "III"), self.entry, phoff, 0)
        head += struct.pack(order + "IHHHHHH", 0, ehsize, phentsize, phnum, 0, 0, 0)
        return ident + head + headers + body
