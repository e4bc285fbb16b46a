"""What a script has made of its machine: memory, devices and hooks, and how operations change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine.base import EngineError
from rrgdb.engine.memory import Region
from rrgdb.engine.unicorn.scripted import ScriptEngine, UcError
from rrgdb.script.ops import Kind, Op, decode


class Piece(NamedTuple):
    """One piece of RAM."""

    base: int
    size: int
    perms: int
    offset: int

    def cut(self, base: int, size: int) -> Iterator[Piece]:
        """What is left without a range."""
        if base > self.base:
            yield self._replace(size=min(self.size, base - self.base))
        end, gone = self.base + self.size, base + size
        if gone < end:
            start = max(gone, self.base)
            yield self._replace(base=start, size=end - start, offset=self.offset + start - self.base)

    def meets(self, base: int, size: int) -> bool:
        return self.base < base + size and base < self.base + self.size


class DeviceRange(NamedTuple):
    base: int
    size: int
    read: int
    write: int


class Hook(NamedTuple):
    number: int
    kind: int
    begin: int
    end: int
    aux1: int
    aux2: int


@dataclass(frozen=True)
class Layout:
    """Everything about the machine but the contents of its memory and CPU. Hooks in the order of registration."""

    pieces: tuple[Piece, ...] = ()
    devices: tuple[DeviceRange, ...] = ()
    hooks: tuple[Hook, ...] = ()

    def encode(self) -> bytes:
        return b"".join(
            [
                *(Op(Kind.MAP, p).encode() for p in self.pieces),
                *(Op(Kind.DEVICE, d).encode() for d in self.devices),
                *(Op(Kind.HOOK, h).encode() for h in self.hooks),
            ]
        )

    @classmethod
    def decode(cls, raw: bytes) -> Layout:
        """ValueError if the bytes are none."""
        found: dict[Kind, list[tuple[int, ...]]] = {Kind.MAP: [], Kind.DEVICE: [], Kind.HOOK: []}
        for op in decode(raw):
            if op.kind not in found:
                raise ValueError(f"{op.kind.name}: no part of a machine")
            found[op.kind].append(op.fields)
        return cls(
            tuple(Piece(*f) for f in found[Kind.MAP]),
            tuple(DeviceRange(*f) for f in found[Kind.DEVICE]),
            tuple(Hook(*f) for f in found[Kind.HOOK]),
        )


class Machine:
    """An engine and the layout that it has, changed together. Methods raise UcError where Unicorn refuses, and
    EngineError where rrgdb does; nothing has changed then."""

    def __init__(self, engine: ScriptEngine, stop: Callable[[], None]) -> None:
        self.engine = engine
        self.layout = Layout()
        self._stop = stop

    def perform(self, op: Op) -> None:
        """Any operation but START and END. EngineError if it cannot be done."""
        engine, f = self.engine, op.fields
        try:
            if op.kind is Kind.REGISTER:
                engine.write_raw(f[0], op.data)
            elif op.kind is Kind.WRITE:
                engine.write_physical(f[0], op.data)
            elif op.kind is Kind.MAP:
                self.map(*f)
            elif op.kind is Kind.UNMAP:
                self.unmap(*f)
            elif op.kind is Kind.PROTECT:
                self.protect(*f)
            elif op.kind is Kind.DEVICE:
                self.map_device(*f)
            elif op.kind is Kind.HOOK:
                self.add_hook(Hook(*f))
            elif op.kind is Kind.UNHOOK:
                self.delete_hook(f[0])
            elif op.kind is Kind.CONTEXT:
                engine.restore_context(op.data)
            else:
                self._stop()
        except (UcError, MemoryFault) as e:
            raise EngineError(f"{op.kind.name} at icount {engine.icount} cannot be done again: {e}") from e

    def map(self, base: int, size: int, perms: int, offset: int, *, zero: bool = True) -> None:
        self.engine.map(base, size, perms, offset, zero=zero)
        self._set_pieces([*self.layout.pieces, Piece(base, size, perms, offset)])

    def _set_pieces(self, pieces: list[Piece]) -> None:
        self.layout = replace(self.layout, pieces=tuple(sorted(pieces)))
        wanted = [Region(p.base, p.size, p.offset) for p in self.layout.pieces]
        if wanted != self.engine.ram.regions:
            self.engine.set_regions(wanted)

    def unmap(self, base: int, size: int) -> None:
        touched = [d for d in self.layout.devices if d.base < base + size and base < d.base + d.size]
        if any(d.base < base or d.base + d.size > base + size for d in touched):
            raise EngineError("mem_unmap: a part of a memory-mapped device cannot be taken away")
        self.engine.unmap(base, size)
        self.layout = replace(self.layout, devices=tuple(d for d in self.layout.devices if d not in touched))
        self._set_pieces([rest for p in self.layout.pieces for rest in p.cut(base, size)])

    def protect(self, base: int, size: int, perms: int) -> None:
        self.engine.protect(base, size, perms)
        pieces: list[Piece] = []
        for p in self.layout.pieces:
            if not p.meets(base, size):
                pieces.append(p)
                continue
            pieces += p.cut(base, size)
            start, end = max(p.base, base), min(p.base + p.size, base + size)
            pieces.append(Piece(start, end - start, perms, p.offset + start - p.base))
        self._set_pieces(pieces)

    def map_device(self, base: int, size: int, read: int, write: int) -> None:
        self.engine.map_device(base, size, read, write)
        self.layout = replace(self.layout, devices=(*self.layout.devices, DeviceRange(base, size, read, write)))

    def add_hook(self, hook: Hook) -> None:
        self.engine.add_hook(*hook)
        self.layout = replace(self.layout, hooks=(*self.layout.hooks, hook))

    def delete_hook(self, number: int) -> None:
        if all(h.number != number for h in self.layout.hooks):
            raise EngineError(f"hook_del: there is no hook {number}")
        self.engine.delete_hook(number)
        self.layout = replace(self.layout, hooks=tuple(h for h in self.layout.hooks if h.number != number))

    def become(self, wanted: Layout) -> None:
        """Take another layout; contents of memory stay as they are. EngineError if Unicorn refuses: the layout is then
        what it has come to."""
        engine, here = self.engine, self.layout
        if wanted == here:
            return
        try:
            for base, size, *_ in {*here.pieces, *here.devices} - {*wanted.pieces, *wanted.devices}:
                engine.unmap(base, size)
            kept = tuple(p for p in here.pieces if p in wanted.pieces)
            engine.set_regions(Region(p.base, p.size, p.offset) for p in kept)
            devices = tuple(d for d in here.devices if d in wanted.devices)
            self.layout = replace(here, pieces=kept, devices=devices)
            for p in wanted.pieces:
                if p not in here.pieces:
                    engine.map(*p, zero=False)
                    self.layout = replace(self.layout, pieces=tuple(sorted((*self.layout.pieces, p))))
            for d in wanted.devices:
                if d not in here.devices:
                    engine.map_device(*d)
                    self.layout = replace(self.layout, devices=(*self.layout.devices, d))
            same = 0
            while same < min(len(here.hooks), len(wanted.hooks)) and here.hooks[same] == wanted.hooks[same]:
                same += 1
            for h in here.hooks[same:]:
                engine.delete_hook(h.number)
            self.layout = replace(self.layout, hooks=here.hooks[:same])
            for h in wanted.hooks[same:]:
                engine.add_hook(*h)
                self.layout = replace(self.layout, hooks=(*self.layout.hooks, h))
        except UcError as e:
            raise EngineError(f"the machine at icount {engine.icount} cannot be made: {e}") from e
        self.layout = wanted
