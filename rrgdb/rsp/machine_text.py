"""What QEMU's monitor commands ``info mtree`` and ``info mem`` print, of what a debuggee tells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rrgdb.rsp.debuggee import BusArea, DebuggeeError, Translated

NO_TRANSLATION = "No translation or protection\n"
LINES_LIMIT = 4096
_HEAD = (
    "vaddr            paddr            size             attr\n"
    "---------------- ---------------- ---------------- -------\n"
)


def translations(found: Iterable[Translated] | None) -> str:
    """A table as QEMU prints for RISC-V; ``found`` may end with DebuggeeError, which becomes the last line."""
    if found is None:
        return NO_TRANSLATION
    lines: list[str] = []
    try:
        for one in found:
            if len(lines) == LINES_LIMIT:
                lines.append(f"... and more than {LINES_LIMIT} others\n")
                break
            lines.append(f"{one.virtual:016x} {one.physical:016x} {one.length:016x} {one.flags}\n")
    except DebuggeeError as e:
        lines.append(f"{e}\n")
    return _HEAD + "".join(lines)


def memory_tree(areas: Sequence[BusArea]) -> str:
    """``areas`` as one flat address space, and one of I/O ports if there are any."""
    text = "address-space: memory\n  0000000000000000-ffffffffffffffff (prio 0, i/o): system\n"
    text += "".join(_area(area, area.kind) for area in areas if area.kind != "port")
    ports = [area for area in areas if area.kind == "port"]
    if ports:
        text += "\naddress-space: I/O\n  0000000000000000-000000000000ffff (prio 0, i/o): io\n"
        text += "".join(_area(area, "i/o") for area in ports)
    return text


def _area(area: BusArea, kind: str) -> str:
    return f"    {area.first:016x}-{area.last:016x} (prio 0, {kind}): {area.name}\n"
