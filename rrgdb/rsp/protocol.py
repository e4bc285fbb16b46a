"""The rules of one debugger's connection, sans-IO: what comes goes in, what is to be done comes out.

In go bytes and when they came, and what became of a served packet. Out come actions, in lists; whoever holds the socket
does them in order, and knows no rule. Nothing here waits, sends, or asks what time it is.

The rules, and the reasons for them
===================================

1.  One packet is served at a time, in the order in which they came: a reply does not say what it answers. GDB sends
    the next packet when it has the reply, LLDB may send some ahead. More than QUEUE_LIMIT that wait are no debugger's,
    and memory has an end: then the peer is not heard any further, as if it had ended.

2.  Everything that is answered takes a turn, a damaged frame as much as a packet. It is acknowledged in its turn, not
    when it comes: a QStartNoAckMode that stands in front of it decides whether acknowledgements are wanted.
    TURNS has what each gets. ``-`` gets the last frame once more, whole, whatever it was; the peer's ``+`` needs
    nothing done, since no frame is ever sent again unasked. Without acknowledgements a damaged frame gets an error
    reply: the peer would wait for ever.

3.  0x03 takes no turn: it is for what runs. It interrupts all that came before it and is not served yet, and nothing
    that came after. Once may be lost, so an interrupt goes on, from INTERRUPT to RELENT: until the last packet that it
    is for has been served.

4.  0x03 while nothing is served is kept for MEMORY_SECONDS, for a resume: GDB that steps by itself (software
    watchpoints, ``step``) sends it between two of its steps, where it would find nothing to stop, and would be lost.
    It is used up by the first resume, whether in time or not; other packets leave it there.

5.  At the end of the stream what came before it is served still, since a last ``D`` decides whether the guest runs on;
    but nobody waits for it: it is interrupted, and has FAREWELL_SECONDS in all.

6.  After ``D`` and ``k`` nothing is served and nothing sent, whatever the peer had sent ahead. Its side is still read,
    for PARTING_SECONDS: to close on bytes that nobody has read would reset the connection, and the peer would lose the
    last reply.

A brief packet (``Call.brief``) may be served by whoever reads, between two events. That is why ``received`` is an
iterator: a 0x03 behind such a packet finds nothing running, as rule 4 wants it, however the stream is cut.

The states
==========

The machines are three. The connection as a whole has the states of State and the table NEXT. Acknowledgements are on
until a packet's result says otherwise, for good. An interrupt is not there, or remembered since a time, or on its way
to all up to a turn, by number. They meet in one place: in RESTING a 0x03 is remembered, in SERVING it goes on its way,
and CLOSED ends it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from rrgdb.rsp import packets
from rrgdb.rsp.debuggee import DebuggeeError
from rrgdb.rsp.dispatcher import Call
from rrgdb.rsp.greeting import Greeting
from rrgdb.rsp.packets import Event, Packet, Rejected, Signal
from rrgdb.rsp.wire import PacketError

QUEUE_LIMIT = 64
"""packets that a peer may send ahead; GDB sends one, LLDB a few"""
MEMORY_SECONDS = 1.0
FAREWELL_SECONDS = 5.0
PARTING_SECONDS = 0.25


class State(Enum):
    RESTING = auto()
    """nothing is served, and nothing waits"""
    SERVING = auto()
    """one packet is served; others may wait"""
    LEAVING = auto()
    """as SERVING, and the peer is not heard any more"""
    CLOSED = auto()
    """nothing is served and nothing sent"""


class Input(Enum):
    """What moves a connection from state to state."""

    TURN = auto()
    """something came that takes a turn"""
    SERVED = auto()
    """what is served has its result"""
    EMPTIED = auto()
    """nothing waits any more behind what was served"""
    FINAL = auto()
    """what is served has its result, and was the last: ``D`` or ``k``"""
    END = auto()
    """the peer has ended its side, or sends too much ahead"""
    LOST = auto()
    """the peer cannot be told anything any more"""


NEXT: dict[State, dict[Input, State]] = {
    State.RESTING: {
        Input.TURN: State.SERVING,
        Input.END: State.CLOSED,
        Input.LOST: State.CLOSED,
    },
    State.SERVING: {
        Input.TURN: State.SERVING,
        Input.SERVED: State.SERVING,
        Input.EMPTIED: State.RESTING,
        Input.FINAL: State.CLOSED,
        Input.END: State.LEAVING,
        Input.LOST: State.CLOSED,
    },
    State.LEAVING: {
        Input.SERVED: State.LEAVING,
        Input.EMPTIED: State.CLOSED,
        Input.FINAL: State.CLOSED,
        Input.END: State.LEAVING,
        Input.LOST: State.CLOSED,
    },
    State.CLOSED: dict.fromkeys(Input, State.CLOSED),
}
"""What is missing cannot happen, unless the caller has a bug."""


class Step(Enum):
    """A part of one turn."""

    ACK = auto()
    NACK = auto()
    SERVE = auto()
    RESEND = auto()
    ERROR = auto()


TURNS: dict[object, tuple[tuple[Step, ...], tuple[Step, ...]]] = {
    # what came: with acknowledgements, without
    Call: ((Step.ACK, Step.SERVE), (Step.SERVE,)),
    Rejected: ((Step.ACK, Step.ERROR), (Step.ERROR,)),
    Signal.BAD_CHECKSUM: ((Step.NACK,), (Step.ERROR,)),
    Signal.NACK: ((Step.RESEND,), ()),
}
_DEAF = (State.LEAVING, State.CLOSED)


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes


@dataclass(frozen=True, slots=True)
class Serve:
    """Serve the packet, then tell its result to ``served``. The last action of its list; the next comes after that."""

    call: Call


@dataclass(frozen=True, slots=True)
class Farewell:
    """Read no more; what is not over after FAREWELL_SECONDS is dropped. ``reason``: for the user, '' if the peer itself
    has ended."""

    reason: str


class Order(Enum):
    INTERRUPT = auto()
    """interrupt what is served, again and again, until RELENT"""
    RELENT = auto()
    CLOSE = auto()
    """end our side of the stream, and give the peer PARTING_SECONDS for the end of its own"""


Action: TypeAlias = Send | Serve | Farewell | Order


class Protocol:
    """One connection from its first packet on.

    ``look_up`` and ``error``: as those of ``dispatcher.Dispatcher``; ``error`` is asked between two packets.
    """

    def __init__(
        self, greeting: Greeting, look_up: Callable[[bytes], Call], error: Callable[[DebuggeeError], bytes]
    ) -> None:
        self._greeting = greeting
        self._look_up = look_up
        self._error = error
        self.state = State.RESTING
        self._no_ack = False
        self._last = b""
        """the last frame that was sent"""
        self._waiting: deque[Call | Rejected | Signal] = deque()
        self._came = self._over = 0
        """turns so far"""
        self._until = 0
        """the last turn that the last interrupt is for"""
        self._remembered = -math.inf

    def begin(self, now: float) -> Iterator[list[Action]]:
        """What the greeting brought. ``now`` in seconds, as everywhere here; see ``received``."""
        for event in self._greeting.events:
            yield self._take(event, now)

    def received(self, data: bytes, now: float) -> Iterator[list[Action]]:
        """What to do for bytes of the peer; each list is to be done before the next is asked for."""
        for event in self._greeting.decoder.feed(data):
            yield self._take(event, now)

    def served(self, frame: bytes | None, *, no_ack: bool, last: bool) -> list[Action]:
        """The packet of the last Serve has been served. ``frame``: its reply, encoded, if there is one; ``no_ack``: no
        acknowledgements from now on; ``last``: nothing more is said on this connection."""
        actions: list[Action] = []
        if self.state is State.CLOSED:
            return actions
        self._move(Input.FINAL if last else Input.SERVED)
        self._no_ack = no_ack
        self._end_turn(actions)
        if frame is not None:
            self._send(frame, actions)
        if last:
            self._close(actions)
        else:
            self._proceed(actions)
        return actions

    def ended(self, reason: str = "") -> list[Action]:
        """The peer has ended its side, or is not heard any more for ``reason``."""
        actions: list[Action] = []
        if self.state in _DEAF:
            return actions
        actions.append(Farewell(reason))
        self._move(Input.END)
        if self.state is State.CLOSED:
            self._close(actions)
        else:
            self._interrupt(actions)
        return actions

    def lost(self) -> list[Action]:
        """Sending has failed: nothing more is served. For the one who serves, between two packets."""
        actions: list[Action] = []
        if self.state is not State.CLOSED:
            self._move(Input.LOST)
            self._close(actions)
        return actions

    def _take(self, event: Event, now: float) -> list[Action]:
        if self.state in _DEAF or event is Signal.ACK or event is Signal.JUNK:
            return []
        if event is Signal.INTERRUPT:
            return self._take_interrupt(now)
        if len(self._waiting) >= QUEUE_LIMIT:
            return self.ended(f"more than {QUEUE_LIMIT} packets wait: connection closed")
        turn = self._look_up(event.payload) if isinstance(event, Packet) else event
        self._waiting.append(turn)
        self._came += 1
        actions: list[Action] = []
        if isinstance(turn, Call) and turn.resumes:
            remembered, self._remembered = self._remembered, -math.inf
            if now - remembered < MEMORY_SECONDS:
                self._interrupt(actions)
        rests = self.state is State.RESTING
        self._move(Input.TURN)
        if rests:
            self._proceed(actions)
        return actions

    def _take_interrupt(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if self.state is State.RESTING:
            self._remembered = now
        else:
            self._interrupt(actions)
        return actions

    def _proceed(self, actions: list[Action]) -> None:
        """All turns up to the next packet's, which is left to the caller."""
        while self._waiting:
            turn = self._waiting.popleft()
            for step in TURNS[turn if isinstance(turn, Signal) else type(turn)][self._no_ack]:
                self._do(step, turn, actions)
            if isinstance(turn, Call):
                return
            self._end_turn(actions)
        self._move(Input.EMPTIED)
        if self.state is State.CLOSED:
            self._close(actions)

    def _do(self, step: Step, turn: Call | Rejected | Signal, actions: list[Action]) -> None:
        if step is Step.ACK:
            actions.append(Send(packets.ACK))
        elif step is Step.NACK:
            actions.append(Send(packets.NACK))
        elif step is Step.SERVE:
            assert isinstance(turn, Call)
            actions.append(Serve(turn))
        elif step is Step.ERROR:
            reason = turn.reason if isinstance(turn, Rejected) else "bad checksum"
            self._send(packets.encode(self._error(PacketError(reason))), actions)
        elif self._last:
            actions.append(Send(self._last))

    def _send(self, frame: bytes, actions: list[Action]) -> None:
        self._last = frame
        actions.append(Send(frame))

    def _interrupt(self, actions: list[Action]) -> None:
        """All that has come and is not over."""
        if self._until <= self._over:
            actions.append(Order.INTERRUPT)
        self._until = self._came

    def _end_turn(self, actions: list[Action]) -> None:
        self._over += 1
        if self._over == self._until:
            actions.append(Order.RELENT)

    def _close(self, actions: list[Action]) -> None:
        if self._until > self._over:
            self._until = self._over
            actions.append(Order.RELENT)
        actions.append(Order.CLOSE)

    def _move(self, what: Input) -> None:
        self.state = NEXT[self.state][what]
