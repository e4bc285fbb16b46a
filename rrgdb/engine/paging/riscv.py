"""RISC-V: Sv32, Sv39, Sv48 and Sv57 (privileged specification, section 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rrgdb.engine.paging.tables import SUPERVISOR, USER, Entry, Level, Permission, ReadRegister, Tables, Translation

_MACHINE, _MPRV = 3, 1 << 17
_VALID, _READ, _WRITE, _EXECUTE, _USER = (1 << n for n in range(5))
_GLOBAL = 1 << 5
_FLAGS = ((_GLOBAL, "global"), (1 << 6, "accessed"), (1 << 7, "dirty"))
_RIGHTS = (
    (_READ, Permission.READ | Permission.USER_READ),
    (_WRITE, Permission.WRITE | Permission.USER_WRITE),
    (_EXECUTE, Permission.EXECUTE | Permission.USER_EXECUTE),
)
_SV32 = 1
_LEVELS = {8: 3, 9: 4, 10: 5}
"""satp's MODE of RV64 -> levels of tables"""


def regime(_: int) -> tuple[tuple[str, int], ...]:
    """(register, its bits) from which the tables of an address follow, and whether there are any: of the privilege only
    machine mode counts, and there what loads and stores are made as."""
    return ("priv", _MACHINE & ~1), ("mstatus", _MPRV | 3 << 11), ("satp", ~0)


def shared(_: int, entries: Sequence[int]) -> bool:
    """Whether an address is translated so in all address spaces: an entry on the way says that it is global (section
    4.3.1). In machine mode, where there are no entries, it is not."""
    return any(entry & _GLOBAL for entry in entries)


def translation(bits: int, register: ReadRegister) -> Translation | None:
    """That of loads and stores; None: addresses are physical."""
    status, mode = register("mstatus"), register("priv")
    if mode == _MACHINE and status & _MPRV:
        mode = status >> 11 & 3
    satp = register("satp")
    count = (2 if satp >> 31 & _SV32 else 0) if bits == 32 else _LEVELS.get(satp >> 60, 0)
    if mode == _MACHINE or not count:
        return None
    size, width, frames = (4, 10, 22) if bits == 32 else (8, 9, 44)
    levels = tuple(Level(12 + n * width, width, size) for n in reversed(range(count)))
    root, decode = (satp & (1 << frames) - 1) << 12, _decoder(frames)
    if bits == 32:
        return Translation((Tables(0, (1 << 32) - 1, root, levels, decode),))
    half = 1 << 11 + count * width
    return Translation(
        (Tables(0, half - 1, root, levels, decode), Tables((1 << 64) - half, (1 << 64) - 1, root, levels, decode))
    )


def _decoder(frames: int) -> Callable[[int, Level], Entry | None]:
    def decode(entry: int, level: Level) -> Entry | None:
        if not entry & _VALID or entry & (_READ | _WRITE) == _WRITE:
            return None
        frame = (entry >> 10 & (1 << frames) - 1) << 12
        if not entry & (_READ | _EXECUTE):
            return Entry(frame, False)
        if frame & (1 << level.shift) - 1:
            return None
        permitted = Permission.NONE
        for bit, rights in _RIGHTS:
            if entry & bit:
                permitted |= rights
        flags = " ".join(name for bit, name in _FLAGS if entry & bit)
        return Entry(frame, True, level.shift, permitted & (USER if entry & _USER else SUPERVISOR), flags)

    return decode
