"""One state of a guest as a file for other programs: an ELF core, or the plain bytes of RAM.

Pages of zeros are left out: the file has holes there.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rrgdb.arch import core_notes
from rrgdb.arch.core_format import CoreFormat
from rrgdb.arch.cpu import ByteOrder
from rrgdb.engine.memory import PAGE, ZERO_PAGE, Ram, Region
from rrgdb.errors import Error
from rrgdb.guest import Guest
from rrgdb.timeline.delta import page_numbers

_PIECE = 2048
"""pages that are copied between two looks at ``interrupted``"""
_PT_LOAD, _PT_NOTE, _ET_CORE = 1, 4, 4
_RWX = 7
_LINUX_SIGNALS = {10: 7}
"""GDB's number of a signal -> Linux's, where they differ (SIGBUS)"""


class ExportError(Error):
    """The state cannot be exported: one line with the file."""


def export(
    guest: Guest,
    path: Path,
    format: str,
    image: bytes = b"",
    progress: Callable[[int], None] = lambda _pages: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Write the present state of a guest to ``path``, replacing a file of that name in one step; mode 0600.

    ``core``: an ELF core with registers and RAM, at its physical addresses. ``raw``: RAM, page by page as in the
    snapshots. ``image``: the guest's own file; a core gets the flags of its ELF header. ``progress`` is told how many
    pages are done. ExportError if it cannot be, or if ``interrupted`` says so: there is no new file then.
    """
    ram = guest.engine.ram
    regions = sorted(ram.regions, key=lambda r: r.base)
    if format == "core":
        head, at = _core_head(guest, regions, path, image)
        size = max([len(head), *(at[r] + r.size for r in regions)])
        places = sorted((r.offset // PAGE, r.size // PAGE, at[r]) for r in regions)
    else:
        head, size, places = b"", ram.size, [(0, ram.pages, 0)]
    try:
        with _replaced(path) as fd:
            os.truncate(fd, size)
            _write(fd, 0, head)
            numbers = ram.populated().tolist()
            for start in range(0, len(numbers), _PIECE):
                if interrupted():
                    raise ExportError(f"{path}: interrupted: nothing was written")
                progress(start)
                for offset, data in _runs(ram, numbers[start : start + _PIECE], places):
                    _write(fd, offset, data)
    except OSError as e:
        raise ExportError(f"{path}: cannot write: {e.strerror}") from e


def _write(fd: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


@contextmanager
def _replaced(path: Path) -> Iterator[int]:
    """A descriptor of what is to be the file ``path``. OSError, ExportError."""
    if path.exists() and not path.is_file():
        raise ExportError(f"{path}: expected a file, or none")
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        try:
            yield fd
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _runs(ram: Ram, numbers: list[int], places: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, bytes]]:
    """(offset in the file, bytes) of the pages that are not zeros; ``places``: (first page, pages, offset)."""
    pages = list(zip(numbers, ram.contents(page_numbers(numbers)), strict=True))
    for first, count, offset in places:
        begin, run = 0, list[bytes]()
        for number, content in pages:
            if content is ZERO_PAGE or not first <= number < first + count:
                continue
            at = offset + (number - first) * PAGE
            if run and at != begin + len(run) * PAGE:
                yield begin, b"".join(run)
                run = []
            begin = begin if run else at
            run.append(content)
        if run:
            yield begin, b"".join(run)


def _elf_flags(image: bytes, form: CoreFormat, byteorder: ByteOrder) -> int:
    wide = image[4:5] == b"\2"
    raw = image[48:52] if wide else image[36:40]
    own = image[:4] == b"\x7fELF" and int.from_bytes(image[18:20], byteorder) == form.machine and len(raw) == 4
    return int.from_bytes(raw, byteorder) if own else form.flags


def _core_head(guest: Guest, regions: list[Region], path: Path, image: bytes) -> tuple[bytes, dict[Region, int]]:
    """ELF header, program headers and notes; and where in the file each region stands."""
    engine = guest.engine
    arch = engine.arch
    form = arch.core
    if form is None:
        raise ExportError(f"{path}: how core files of {arch.name} look is not known: use raw")
    little = arch.byteorder == "little"
    mark = "<" if little else ">"
    end = guest.end
    signal = end.value if end is not None and end.kind == "signal" else 0
    flags = _elf_flags(image, form, arch.byteorder)
    note = core_notes.notes(engine, arch, form, _LINUX_SIGNALS.get(signal, signal), flags)
    wide = arch.bits == 64
    header, entry = (64, 56) if wide else (52, 32)
    note_at = header + entry * (1 + len(regions))
    free = -(-(note_at + len(note)) // PAGE) * PAGE
    at: dict[Region, int] = {}
    for region in regions:
        at[region] = free
        free += region.size
    if not wide and free >> 32:
        raise ExportError(f"{path}: {free} bytes are too many for a core file of a 32-bit guest: use raw")
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1 if little else 2, 1)).ljust(12, b"\0")
    words = "QQQ" if wide else "III"
    head = ident + struct.pack(
        f"{mark}HHI{words}IHHHHHH",
        _ET_CORE,
        form.machine,
        1,
        0,
        header,
        0,
        flags,
        header,
        entry,
        1 + len(regions),
        0,
        0,
        0,
    )

    def segment(type_: int, flags: int, offset: int, address: int, filed: int, size: int, align: int) -> bytes:
        if wide:
            return struct.pack(f"{mark}IIQQQQQQ", type_, flags, offset, address, address, filed, size, align)
        return struct.pack(f"{mark}IIIIIIII", type_, offset, address, address, filed, size, flags, align)

    head += segment(_PT_NOTE, 0, note_at, 0, len(note), 0, 4)
    head += b"".join(segment(_PT_LOAD, _RWX, at[r], r.base, r.size, r.size, PAGE) for r in regions)
    return head + note, at
