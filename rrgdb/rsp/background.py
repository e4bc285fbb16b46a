"""The server on a thread of its own, for a program that keeps its main thread and touches the debuggee there."""

from __future__ import annotations

import threading
from collections.abc import Callable

import trio

from rrgdb.rsp.address import Address, AddressError
from rrgdb.rsp.debuggee import Debuggee
from rrgdb.rsp.server import serve
from rrgdb.serving.calls import CallQueue


class Background:
    """Serves debuggers until ``finish``; the caller serves ``calls``. ``name``: ``Listening on HOST:PORT``.

    Raises AddressError if it cannot listen.
    """

    def __init__(self, debuggee: Debuggee, address: Address, calls: CallQueue) -> None:
        self.name = ""
        self._error: AddressError | None = None
        self._finish: Callable[[], None] = lambda: None
        self.alive = True
        """whether it serves; false from a moment on at which ``calls`` is woken"""
        self._listening = threading.Event()
        self._thread = threading.Thread(
            target=trio.run, args=(self._serve, debuggee, address, calls), name="rrgdb-server", daemon=True
        )
        self._thread.start()
        self._listening.wait()
        if self._error is not None:
            raise self._error

    async def _serve(self, debuggee: Debuggee, address: Address, calls: CallQueue) -> None:
        try:
            await serve(debuggee, address, engine=calls, on_listening=self._listens, on_ready=self._is_ready)
        except AddressError as e:
            self._error = e
        finally:
            self.alive = False
            self._listening.set()
            calls.wake()

    def _listens(self, name: str) -> None:
        self.name = name

    def _is_ready(self, finish: Callable[[], None]) -> None:
        self._finish = finish
        self._listening.set()

    def finish(self) -> None:
        """End the server as soon as no debugger is attached; the caller goes on serving calls while it is alive."""
        self._finish()
