"""The remote protocol under broken sessions: decoder, session and a real guest behind them; at times a socket."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import math
import random
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from fuzzlib import packets_corpus, packets_damage
from fuzzlib.packets_corpus import Seed
from rrgdb.opening import Opened, record, replay
from rrgdb.rsp.address import TcpAddress
from rrgdb.rsp.background import Background
from rrgdb.rsp.dispatcher import Dispatcher
from rrgdb.rsp.packets import PACKET_SIZE, Decoder, Event, Packet, Rejected, Signal, encode
from rrgdb.rsp.session import Session
from rrgdb.serving.calls import EngineThread
from rrgdb.target import Target
from rrgdb.timeline.verify import verify

_LIVE, _SOCKET = 0.03, 0.01
"""of the cases: those whose guest is being recorded, those over a socket"""
_KEPT = 50
"""cases on one opened recording; then it is closed, opened, verified, and made anew"""
_SILENT = (b"k", b"R")
"""packets without a reply"""
_LOOKING = (b"?", b"g", b"H", b"m", b"p", b"q", b"T", b"vCont?", b"vMustReplyEmpty", b"x", b"Z", b"z", b"Q")
"""packets that leave the guest as it is, but for ``qRcmd``"""
_INTERRUPT_SECONDS = 0.02
_ANSWER_SECONDS = 60


class Packets:
    def __init__(self, work: Path) -> None:
        self._seeds = packets_corpus.build(work / "corpus")
        self._open: dict[str, _Kept] = {}

    def damage(self, rng: random.Random) -> dict[str, bytes]:
        """The bytes of one peer, and which guest they are for."""
        family = rng.choice(sorted(self._seeds))
        seed = self._seeds[family]
        kind = rng.random()
        how = "live" if kind < _LIVE else "socket" if kind < _LIVE + _SOCKET else "replay"
        return {
            "guest": f"{family} {how}".encode(),
            "stream": packets_damage.damage(seed.sessions, seed.program.base, rng),
        }

    def exercise(self, directory: Path, rng: random.Random) -> None:
        """Serve the stream; raises what is wrong with an answer, or with the guest and its recording afterwards."""
        family, how = (directory / "guest").read_text().split()
        seed, stream = self._seeds[family], (directory / "stream").read_bytes()
        path = directory / "r.rrgdb"
        if how == "live":
            with record(path, seed.image, seed.program.options, interval=1e-6) as opened:
                _serve(opened, stream, rng)
            _check(path, {})
        elif how == "socket":
            shutil.copytree(seed.recording, path)
            with replay(path) as opened:
                _serve_socket(opened, stream, rng)
            _check(path, seed.digests)
        else:
            if family not in self._open:
                self._open[family] = _Kept(seed, directory.parent / f"kept-{family}")
            self._open[family].serve(stream, rng)


class _Kept:
    """A recording that stays open from case to case: to open one takes longer than a case."""

    def __init__(self, seed: Seed, path: Path) -> None:
        self._seed = seed
        self._path = path
        self._cases = 0
        self._opened: Opened | None = None

    def serve(self, stream: bytes, rng: random.Random) -> None:
        if self._opened is None:
            shutil.rmtree(self._path, ignore_errors=True)
            shutil.copytree(self._seed.recording, self._path)
            self._opened = replay(self._path)
        opened = self._opened
        names = [stored.name for stored in opened.timeline.marks.stored]
        done = False
        try:
            opened.timeline.seek_regardless(0)
            _serve(opened, stream, rng)
            _history(opened, self._seed.digests, rng)
            done = True
        finally:
            self._cases += 1
            changed = names != [stored.name for stored in opened.timeline.marks.stored]
            if changed or not done or self._cases % _KEPT == 0:
                self._opened = None
                opened.close()
                gc.collect()
        if self._opened is None:
            _check(self._path, self._seed.digests)


def _history(opened: Opened, digests: dict[int, bytes], rng: random.Random) -> None:
    for icount in rng.sample(sorted(digests), 2):
        opened.timeline.seek_regardless(icount)
        if opened.timeline.marks.state_digest() != digests[icount]:
            raise AssertionError(f"the state at icount {icount} is another")


def _check(path: Path, digests: dict[int, bytes]) -> None:
    """The recording opens, is whole, and is what it was."""
    with replay(path, writable=False) as opened:
        if opened.messages:
            raise AssertionError(f"the recording opens with {opened.messages}")
        verify(opened.timeline, lambda _line: None)
        if digests and opened.timeline.end != max(digests):
            raise AssertionError(f"the recording ends at icount {opened.timeline.end}")


class _Patience:
    """Ctrl-C for packets that take long: a guest in a diversion may run for ever."""

    def __init__(self) -> None:
        self._since = math.inf
        self._target: Target | None = None
        threading.Thread(target=self._watch, daemon=True).start()

    @contextlib.contextmanager
    def with_packet(self, target: Target) -> Iterator[None]:
        self._target, self._since = target, time.monotonic()
        try:
            yield
        finally:
            self._since = math.inf

    def _watch(self) -> None:
        while True:
            time.sleep(_INTERRUPT_SECONDS / 2)
            if time.monotonic() - self._since > _INTERRUPT_SECONDS and self._target is not None:
                self._target.interrupt()


_patience = cache(_Patience)


def _events(stream: bytes, rng: random.Random) -> Iterator[Event]:
    """What a decoder makes of the stream, cut anywhere; and it makes the same of it as a whole."""
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(6)))
    decoder = Decoder()
    edges = [0, *cuts, len(stream)]
    events = [event for start, end in itertools.pairwise(edges) for event in decoder.feed(stream[start:end])]
    if events != Decoder().feed(stream):
        raise AssertionError("the decoder depends on how the stream is cut")
    return iter(events)


def _serve(opened: Opened, stream: bytes, rng: random.Random) -> None:
    target = Target(opened)
    said: list[str] = []
    session = Session(target, said.append)
    dispatcher = Dispatcher(session)
    for event in _events(stream, rng):
        if isinstance(event, Packet):
            with _patience().with_packet(target):
                _answer(opened, dispatcher, event.payload, rng)
            if session.should_close:
                break
        elif not isinstance(event, Rejected | Signal):
            raise AssertionError(f"the decoder yields {event!r}")
    session.drop()
    opened.timeline.drop_diversion()
    if target._points and not session.killed:
        raise AssertionError("points are left behind")
    if any(not text.endswith("\n") for text in said):
        raise AssertionError(f"half a line on the console: {said[-1]!r}")


def _answer(opened: Opened, dispatcher: Dispatcher, packet: bytes, rng: random.Random) -> None:
    timeline = opened.timeline
    looks = packet.startswith(_LOOKING) and not packet.startswith(b"qRcmd")
    compare = looks and rng.random() < 0.1
    before = (timeline.icount, timeline.diverted_from)
    digest = timeline.marks.state_digest() if compare else b""
    call = dispatcher.look_up(packet)
    reply = dispatcher.handle(call)
    if reply is None:
        if not packet.startswith(_SILENT) or (packet[:1] == b"k" and packet != b"k"):
            raise AssertionError(f"{packet[:80]!r}: no reply")
        return
    if len(reply) > PACKET_SIZE or Decoder().feed(encode(reply)) != [Packet(reply)]:
        raise AssertionError(f"{packet[:80]!r}: a reply of {len(reply)} bytes that does not come through")
    if call.command is None and call.error is None and reply:
        raise AssertionError(f"{packet[:80]!r} is unknown and gets {reply[:80]!r}")
    if reply[:1] == b"E" and len(reply) != 3 and not reply.startswith(b"E."):
        raise AssertionError(f"{packet[:80]!r}: error reply {reply[:80]!r}")
    if looks and before != (timeline.icount, timeline.diverted_from):
        raise AssertionError(f"{packet[:80]!r} moves the guest")
    if compare and digest != timeline.marks.state_digest():
        raise AssertionError(f"{packet[:80]!r} changes the guest")


class _Errors(logging.Handler):
    """Lines for the user that tell of a bug."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if " dropped: " not in line and "packets wait" not in line:
            self.lines.append(line)


class _Killable(Target):
    killed = False

    def kill(self) -> None:
        self.killed = True
        super().kill()


def _serve_socket(opened: Opened, stream: bytes, rng: random.Random) -> None:
    """The whole server; a sound debugger comes afterwards."""
    target = _Killable(opened)
    errors = _Errors()
    logger = logging.getLogger("rrgdb.rsp")
    logger.addHandler(errors)
    logger.propagate = False
    try:
        with EngineThread(target.interrupt, target.idle) as engine:
            server = Background(target, TcpAddress("127.0.0.1", 0), engine)
            port = int(server.name.rpartition(":")[2])
            _talk(port, stream, rng)
            if not target.killed:
                _talk(port, encode(b"qC"), rng, wanted=b"$QC")
            server.finish()
            server._thread.join(_ANSWER_SECONDS)
            if server.alive:
                raise AssertionError("the server does not end")
    finally:
        logger.removeHandler(errors)
    if errors.lines:
        raise AssertionError(f"the server says {errors.lines[0]!r}")


def _talk(port: int, stream: bytes, rng: random.Random, wanted: bytes = b"") -> None:
    """Send all, read all."""
    heard = b""
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS) as link:
        cut = rng.randrange(len(stream) + 1)
        for part in (stream[:cut], stream[cut:]):
            link.sendall(part)
        link.shutdown(socket.SHUT_WR)
        while data := link.recv(65536):
            heard += data
    if wanted not in heard:
        raise AssertionError(f"a sound debugger is answered {heard[:80]!r}")
