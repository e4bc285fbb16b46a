"""``monitor`` commands: one table of words, argument, help and function; help and abbreviations follow from it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic

from rrgdb.rsp import examine, machine_text
from rrgdb.rsp.debuggee import (
    Debuggee,
    DebuggeeError,
    Hardware,
    Physical,
    PhysicalWatch,
    RegisterInfo,
    Snapshots,
    StopReason,
    StopReply,
    Time,
    Watching,
    ZType,
)
from rrgdb.rsp.faces import BASE, HARDWARE, PHYSICAL, SNAPSHOTS, TIME, WATCHING, F, Face
from rrgdb.rsp.session import Session

HISTORY_LIMIT = 10_000
EVENTS_LIMIT = 10_000
NAME_LIMIT = 64
LINE_LIMIT = 500
ICOUNT_LIMIT = (1 << 63) - 1
ADDRESS_LIMIT = (1 << 64) - 1
_HISTORY_DEFAULT = 10
_EVENTS_DEFAULT = 20
_MOST = {1: "one argument", 2: "two arguments at most", 3: "three arguments at most"}
WATCH_LIMIT = 4096
"""bytes of one watch"""
_WATCHES = {"w": ZType.WRITE, "r": ZType.READ, "a": ZType.ACCESS}
_GLUED = re.compile(r"^(\s*xp?)(?=/)")
"""QEMU takes ``xp/8x`` as well"""
_REFRESH_HINT = (
    "The guest has moved, and gdb must be told: `maintenance flush dcache`, `maintenance flush register-cache`, "
    "`frame`, and for each watchpoint N `enable N` (the file of `rrgdb gdbinit` does it all).\n"
)


class MonitorError(DebuggeeError):
    """The user's mistake, in one line; EINVAL."""


@dataclass(frozen=True, slots=True)
class MonitorCommand(Generic[F]):
    """``words`` is what the user types, ``argument`` how the help names what follows ('' for nothing, […] if it may be
    left out), in ``most`` words. ``moves``: the guest stands elsewhere afterwards and GDB must be told. Without
    ``face`` the command is unknown."""

    words: tuple[str, ...]
    argument: str
    help: str
    face: Face[F]
    function: Callable[[Session, F, str], str]
    """session, what ``face`` found, argument -> the text for the user"""
    moves: bool = False
    most: int = 1

    @property
    def needs_argument(self) -> bool:
        return bool(self.argument) and not self.argument.endswith("]")


def _count(text: str, what: str, default: int | None = None, limit: int = ICOUNT_LIMIT) -> int:
    if not text and default is not None:
        return default
    try:
        value = int(text, 0) if text.isascii() and "_" not in text else -1
    except ValueError:
        value = -1
    if value < 0:
        raise MonitorError(f"bad {what} {text!r}: a number is expected, decimal or 0x…")
    if value > limit:
        raise MonitorError(f"bad {what} {text}: at most {limit}")
    return value


def _name(text: str) -> str:
    if not text.isprintable() or " " in text or len(text) > NAME_LIMIT:
        raise MonitorError(f"bad name: up to {NAME_LIMIT} printable characters without spaces are expected")
    return text


def _moved(time: Time, stop: StopReply) -> str:
    info = time.replay_info()
    if stop.reason is StopReason.INTERRUPT:
        note = " (interrupted)"
    elif info.icount <= info.start:
        note = " (the beginning of history)"
    else:
        note = " (the end of history)" if info.icount >= info.end else ""
    return f"icount {info.icount}{note}\n"


def offered(debuggee: Debuggee) -> list[MonitorCommand[Any]]:
    """The commands that this debuggee has the face for."""
    return [command for command in COMMANDS if command.face.of(debuggee) is not None]


def _help(_: Session, debuggee: Debuggee, __: str) -> str:
    usages = [(" ".join((*command.words, command.argument)).rstrip(), command.help) for command in offered(debuggee)]
    width = max(len(usage) for usage, _ in usages)
    return "".join(f"{usage:{width}}  {text}\n" for usage, text in usages)


def _when(_: Session, time: Time, __: str) -> str:
    info = time.replay_info()
    origin = "" if info.origin is None else f", diverted from {info.origin}"
    stopped = f"; {info.stopped}" if info.stopped else ""
    return f"icount {info.icount} of {info.start}..{info.end}, {info.mode}{origin}{stopped}\n"


def _seek(_: Session, time: Time, where: str) -> str:
    return _moved(time, time.seek(_name(where)))


def _back(_: Session, time: Time, count: str) -> str:
    return _moved(time, time.seek_relative(-_count(count, "count", 1)))


def _forward(_: Session, time: Time, count: str) -> str:
    return _moved(time, time.seek_relative(_count(count, "count", 1)))


def _history(_: Session, time: Time, count: str) -> str:
    lines = time.history(_count(count, "count", _HISTORY_DEFAULT, HISTORY_LIMIT))
    if not lines:
        return "no instruction was executed yet\n"
    return "".join(f"{line.icount:>12}  {line.address:#x}  {line.text}\n" for line in lines)


def _savevm(_: Session, snapshots: Snapshots, name: str) -> str:
    snapshots.save_snapshot(_name(name))
    return f"snapshot {name} at icount {snapshots.replay_info().icount}\n"


def _loadvm(_: Session, snapshots: Snapshots, name: str) -> str:
    return _moved(snapshots, snapshots.load_snapshot(_name(name)))


def _delvm(_: Session, snapshots: Snapshots, name: str) -> str:
    snapshots.delete_snapshot(_name(name))
    return f"snapshot {name} deleted\n"


def _info_replay(_: Session, time: Time, __: str) -> str:
    info = time.replay_info()
    fields = [
        ("recording", info.recording or "(none)"),
        ("mode", info.mode),
        ("icount", str(info.icount)),
        ("history", f"{info.start}..{info.end}"),
    ]
    if info.origin is not None:
        fields.append(("diverted from", str(info.origin)))
    return "".join(f"{name}: {value}\n" for name, value in fields)


def _info_engine(_: Session, time: Time, __: str) -> str:
    return "".join(f"{line}\n" for line in time.engine_info())


def _info_snapshots(_: Session, snapshots: Snapshots, __: str) -> str:
    found = snapshots.snapshots()
    if not found:
        return "no snapshots\n"
    lines = [f"{'icount':>16} {'bytes':>12}  name\n"]
    for snapshot in found:
        kind = " (automatic)" if snapshot.automatic else ""
        lines.append(f"{snapshot.icount:>16} {snapshot.bytes:>12}  {snapshot.name}{kind}\n")
    return "".join(lines)


def _info_events(_: Session, time: Time, limit: str) -> str:
    events = time.events(_count(limit, "count", _EVENTS_DEFAULT, EVENTS_LIMIT))
    if not events:
        return "no more events\n"
    return "".join(f"{event.icount:>16} {event.size:>8} bytes  {event.source}\n" for event in events)


def _info_registers(session: Session, debuggee: Debuggee, name: str) -> str:
    registers = tuple(enumerate((*debuggee.registers, *debuggee.system_registers)))
    if name:
        registers = _named(registers, name)
    width = max((len(register.name) for _, register in registers), default=0)
    lines = []
    for number, register in registers:
        value = int.from_bytes(debuggee.read_register(session.thread, number), debuggee.byteorder)
        lines.append(f"{register.name:{width}}  {value:#0{2 * (register.bits + 7 >> 3) + 2}x}\n")
    return "".join(lines)


def _named(registers: tuple[tuple[int, RegisterInfo], ...], name: str) -> tuple[tuple[int, RegisterInfo], ...]:
    found = tuple(r for r in registers if r[1].name.lower() == name.removeprefix("$").lower())
    if not found:
        raise MonitorError(f"no register {name!r}: see `monitor info registers`")
    return found


def _examine(session: Session, debuggee: Debuggee, argument: str) -> str:
    digits = max(register.bits for register in debuggee.registers if register.expedited) // 4
    form, address = _what(argument)
    return examine.dump(form, address, digits, partial(debuggee.read_memory, session.thread), debuggee.byteorder)


def _examine_physical(session: Session, physical: Physical, argument: str) -> str:
    form, address = _what(argument)
    return examine.dump(form, address, 16, physical.read_physical, session.debuggee.byteorder)


def _what(argument: str) -> tuple[examine.Format, int]:
    form, _, address = argument.rpartition(" ")
    return examine.parse(form or "/"), _count(address, "address", limit=ADDRESS_LIMIT)


def _info_tlb(session: Session, physical: Physical, _: str) -> str:
    return machine_text.translations(physical.translations(session.thread))


def _gva2gpa(session: Session, physical: Physical, address: str) -> str:
    found = physical.translate(session.thread, _count(address, "address", limit=ADDRESS_LIMIT))
    return "Unmapped\n" if found is None else f"gpa: {found:#x}\n"


def _watch_physical(_: Session, watching: Watching, argument: str) -> str:
    if not argument:
        watches = watching.physical_watches()
        return "".join(f"{_watched(watch)}\n" for watch in watches) or "no physical address is watched\n"
    address, *more = argument.split()
    if not more:
        raise MonitorError("`watch-physical` needs an address and a length in bytes")
    length, kind = more[0], more[1] if len(more) > 1 else "w"
    if kind not in _WATCHES:
        raise MonitorError(f"bad kind {kind!r}: w (writes), r (reads) or a (both) is expected")
    watch = PhysicalWatch(
        _count(address, "address", limit=ADDRESS_LIMIT), _count(length, "length", limit=WATCH_LIMIT), _WATCHES[kind]
    )
    if not watch.length:
        raise MonitorError("nothing is 0 bytes long")
    watching.watch_physical(watch)
    return f"watching {_watched(watch)}\n"


def _watched(watch: PhysicalWatch) -> str:
    kind = next(kind for kind, type_ in _WATCHES.items() if type_ is watch.type)
    return f"{watch.address:#x} {watch.length} {kind}"


def _unwatch_physical(_: Session, watching: Watching, which: str) -> str:
    address = None if which == "all" else _count(which, "address", limit=ADDRESS_LIMIT)
    if not watching.unwatch_physical(address) and address is not None:
        raise MonitorError(f"{address:#x} is not watched: see `monitor watch-physical`")
    return ""


def _watch_space(_: Session, watching: Watching, which: str) -> str:
    if which not in {"", "any", "current"}:
        raise MonitorError(f"bad space {which!r}: current or any is expected")
    if which:
        watching.bind_watches(which == "current")
    root = watching.bound_to()
    return "any address space\n" if root is None else f"the address space of the page tables at {root:#x}\n"


def _info_mtree(_: Session, hardware: Hardware, __: str) -> str:
    return machine_text.memory_tree(hardware.areas())


def _info_irq(_: Session, hardware: Hardware, __: str) -> str:
    return "".join(f"{line}\n" for line in hardware.interrupts())


def _replay_break(_: Session, time: Time, icount: str) -> str:
    time.replay_break(_count(icount, "icount"))
    return ""


def _replay_delete_break(_: Session, time: Time, __: str) -> str:
    time.replay_delete_break()
    return ""


COMMANDS: tuple[MonitorCommand[Any], ...] = (
    MonitorCommand(("help",), "", "this text", BASE, _help),
    MonitorCommand(("when",), "", "where the guest stands in time", TIME, _when),
    MonitorCommand(
        ("seek",), "ICOUNT|start|end|NAME", "go to an icount, an end of history or a snapshot", TIME, _seek, True
    ),
    MonitorCommand(("back",), "[N]", "go N instructions back (1)", TIME, _back, True),
    MonitorCommand(("forward",), "[N]", "go N instructions forward (1)", TIME, _forward, True),
    MonitorCommand(("history",), "[N]", f"show the last N executed instructions ({_HISTORY_DEFAULT})", TIME, _history),
    MonitorCommand(("savevm",), "NAME", "save a snapshot here", SNAPSHOTS, _savevm),
    MonitorCommand(("loadvm",), "NAME", "go to a snapshot", SNAPSHOTS, _loadvm, True),
    MonitorCommand(("delvm",), "NAME", "delete a snapshot", SNAPSHOTS, _delvm),
    MonitorCommand(("info", "replay"), "", "recording, mode, position and ends of history", TIME, _info_replay),
    MonitorCommand(("info", "snapshots"), "", "all snapshots", SNAPSHOTS, _info_snapshots),
    MonitorCommand(
        ("info", "events"), "[N]", f"show the next N events of the log ({_EVENTS_DEFAULT})", TIME, _info_events
    ),
    MonitorCommand(
        ("info", "registers"), "[NAME]", "all registers in hex, system registers too, or one", BASE, _info_registers
    ),
    MonitorCommand(("info", "tlb"), "", "what the page tables map: supervisor, user, flags", PHYSICAL, _info_tlb),
    MonitorCommand(("info", "mtree"), "", "the memory map of the machine", HARDWARE, _info_mtree),
    MonitorCommand(("info", "irq"), "", "interrupt lines and controllers", HARDWARE, _info_irq),
    MonitorCommand(("info", "engine"), "", "how much is counted block by block", TIME, _info_engine),
    MonitorCommand(("x",), "[/FORMAT] ADDRESS", "memory, in QEMU's formats (/8xg)", BASE, _examine, most=2),
    MonitorCommand(
        ("xp",), "[/FORMAT] ADDRESS", "the same at a physical address: RAM and ROM", PHYSICAL, _examine_physical, most=2
    ),
    MonitorCommand(("gva2gpa",), "ADDRESS", "the physical address of a virtual one", PHYSICAL, _gva2gpa),
    MonitorCommand(
        ("watch-physical",),
        "[ADDRESS LENGTH [w|r|a]]",
        "stop at writes (w), reads or both of physical memory; alone: list",
        WATCHING,
        _watch_physical,
        most=3,
    ),
    MonitorCommand(
        ("unwatch-physical",), "ADDRESS|all", "forget watch-physical there, or all", WATCHING, _unwatch_physical
    ),
    MonitorCommand(
        ("watch-space",),
        "[current|any]",
        "whose memory GDB's watchpoints watch: that of the process that runs now, or of any (any)",
        WATCHING,
        _watch_space,
    ),
    MonitorCommand(("replay_seek",), "ICOUNT", "go to an icount (QEMU's name of seek)", TIME, _seek, True),
    MonitorCommand(
        ("replay_break",), "ICOUNT", "stop when passing this icount, in either direction", TIME, _replay_break
    ),
    MonitorCommand(("replay_delete_break",), "", "forget replay_break", TIME, _replay_delete_break),
)


def _find(commands: list[MonitorCommand[Any]], words: list[str]) -> tuple[MonitorCommand[Any], list[str]]:
    """The command that ``words`` begin with, each word whole or abbreviated, and the words behind it."""
    left = commands
    depth = 0
    while True:
        if depth == len(words):
            raise MonitorError(f"{' '.join(words)!r} needs one of: {', '.join(c.words[depth] for c in left)}")
        typed = words[depth]
        matching = [c for c in left if c.words[depth].startswith(typed)]
        exact = [c for c in matching if c.words[depth] == typed]
        left = exact or matching
        names = sorted({c.words[depth] for c in left})
        if not left:
            raise MonitorError(f"unknown command {typed!r}: see `monitor help`")
        if len(names) > 1:
            raise MonitorError(f"{typed!r} is ambiguous: {', '.join(names)}")
        depth += 1
        if len(left) == 1 and depth == len(left[0].words):
            return left[0], words[depth:]


def run(session: Session, line: str, *, moving: bool = True) -> str:
    """Serve one command line; the text for the user. Not ``moving``: whoever asks is no debugger, which would be told
    that the guest stands elsewhere. Raises MonitorError and what the debuggee raises."""
    if len(line) > LINE_LIMIT:
        raise MonitorError(f"command of {len(line)} characters: at most {LINE_LIMIT}")
    words = _GLUED.sub(r"\1 ", line).split()
    if not words:
        raise MonitorError("empty command: see `monitor help`")
    command, arguments = _find(offered(session.debuggee), words)
    if arguments and not command.argument:
        raise MonitorError(f"`{' '.join(command.words)}` takes no argument")
    if len(arguments) > command.most:
        raise MonitorError(f"`{' '.join(command.words)}` takes {_MOST[command.most]}: {command.argument}")
    if not arguments and command.needs_argument:
        raise MonitorError(f"`{' '.join(command.words)}` needs an argument: {command.argument}")
    if command.moves and not moving:
        raise MonitorError(f"`{' '.join(command.words)}` moves the guest: it is for a debugger")
    if session.gone:
        raise MonitorError("the process is gone: use run or attach")
    face = command.face.of(session.debuggee)
    text = command.function(session, face, " ".join(arguments))
    return text + _REFRESH_HINT if command.moves else text
