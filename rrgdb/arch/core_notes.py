"""Registers as ELF core files hold them: the notes of Linux's core dumps.

Source: Linux, ``include/uapi/linux/elfcore.h`` (``struct elf_prstatus``).
"""

from __future__ import annotations

import struct

from rrgdb.arch.base import Arch
from rrgdb.arch.core_format import NT_PRSTATUS, CoreFormat, Note
from rrgdb.arch.cpu import Cpu

_PID = 1


def notes(cpu: Cpu, arch: Arch, form: CoreFormat, signal: int, flags: int) -> bytes:
    """The PT_NOTE segment of a core of the one CPU, which stopped with ``signal`` (Linux's number; 0: none)."""
    head = struct.Struct("<III" if arch.byteorder == "little" else ">III")
    parts = []
    for note in (_prstatus(arch, form, signal), *form.notes_for(flags)):
        owner, content = note.owner.encode() + b"\0", note.content(cpu, arch.byteorder)
        parts.append(head.pack(len(owner), len(content), note.type))
        parts += [part.ljust(-(-len(part) // 4) * 4, b"\0") for part in (owner, content)]
    return b"".join(parts)


def _prstatus(arch: Arch, form: CoreFormat, signal: int) -> Note:
    long = arch.bits // 8
    # signo, code, errno; cursig; two masks; pid; ppid, pgrp, sid; four times.
    head = (0, 12), (signal, 4), (0, 2 * long), (_PID, 4), (0, 12), (0, 8 * long)
    return Note("CORE", NT_PRSTATUS, (*head, *form.registers, (0, long)))
