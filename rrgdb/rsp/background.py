"""The server on a thread of its own, for a program that keeps its main thread and touches the debuggee there."""

from __future__ import annotations

import threading
from collections.abc import Callable

import trio

from rrgdb.rsp.address import Address, AddressError
from rrgdb.rsp.debuggee import Debuggee
from rrgdb.rsp.engine_thread import CallQueue
from rrgdb.rsp.server import serve


class Background:
    """Serves debuggers until ``close``; the caller serves ``calls``. ``name``: ``Listening on HOST:PORT``.

    Raises AddressError if it cannot listen.
    """

    def __init__(self, debuggee: Debuggee, address: Address, calls: CallQueue) -> None:
        self.name = ""
        self._error: AddressError | None = None
        self._cancel: Callable[[], None] = lambda: None
        self._listening = threading.Event()
        self._thread = threading.Thread(
            target=trio.run, args=(self._serve, debuggee, address, calls), name="rrgdb-server", daemon=True
        )
        self._thread.start()
        self._listening.wait()
        if self._error is not None:
            raise self._error

    async def _serve(self, debuggee: Debuggee, address: Address, calls: CallQueue) -> None:
        token, scope = trio.lowlevel.current_trio_token(), trio.CancelScope()
        self._cancel = lambda: token.run_sync_soon(scope.cancel)
        try:
            with scope:
                await serve(debuggee, address, engine=calls, on_listening=self._listens)
        except AddressError as e:
            self._error = e
        finally:
            self._listening.set()
            calls.wake()

    def _listens(self, name: str) -> None:
        self.name = name
        self._listening.set()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """End the server; a debugger that is attached is cut off. Idempotent."""
        try:
            self._cancel()
        except trio.RunFinishedError:
            return
