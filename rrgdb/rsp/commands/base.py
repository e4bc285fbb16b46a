"""What a packet family registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rrgdb.rsp.session import Session

Handler: TypeAlias = Callable[[Session, bytes], bytes | None]
"""session, arguments -> payload of the reply, or None for no reply. Raises DebuggeeError."""


def nothing(_: Session) -> Sequence[str]:
    return ()


def always(*entries: str) -> Callable[[Session], Sequence[str]]:
    """Entries of the qSupported reply that do not depend on the debugger."""
    return lambda _: entries


@dataclass(frozen=True, slots=True)
class Command:
    """One packet: a single letter, or a name out of letters with one of the bytes of ``separator`` behind it."""

    name: bytes
    handle: Handler
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
