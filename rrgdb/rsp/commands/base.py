"""What a packet family registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from rrgdb.rsp.faces import F, Face
from rrgdb.rsp.session import Session


def nothing(_: Session) -> Sequence[str]:
    return ()


def always(*entries: str) -> Callable[[Session], Sequence[str]]:
    """Entries of the qSupported reply that do not depend on the debugger."""
    return lambda _: entries


@dataclass(frozen=True, slots=True)
class Command(Generic[F]):
    """One packet: a single letter, or a name out of letters with one of the bytes of ``separator`` behind it.

    Without ``face`` it is as if the packet were not in the table: the reply is empty, and nothing is advertised.
    """

    name: bytes
    face: Face[F]
    handle: Callable[[Session, F, bytes], bytes | None]
    """session, what ``face`` found, arguments -> payload of the reply, or None for no reply. Raises DebuggeeError."""
    separator: bytes = b""
    advertises: Callable[[Session], Sequence[str]] = nothing
    """entries of the qSupported reply that this packet stands for"""
    needs_process: bool = False
    """refused while there is none: after exit, kill or detach in extended-remote"""
    console: bool = False
    """GDB shows console output that arrives before the reply"""
    resumes: bool = False
    """the guest runs until it stops or is interrupted"""
    brief: bool = False
    """served in microseconds, the guest does not move: no need for another thread"""
    steps: frozenset[bytes] = frozenset()
    """arguments with which the only thread of a debuggee makes one step forward: see ``Debuggee.steps_at_once``"""
