"""What a guest sends out, shown once however often it is replayed."""

from __future__ import annotations

from collections.abc import Callable


class OutputStream:
    """Output of one source, counted in bytes since the start of the recording.

    ``emitted`` is part of the guest's state and goes back with it; ``furthest`` only goes up: bytes below it have been
    taken for showing before. Segments between flushes are contiguous unless a seek skipped output.
    """

    __slots__ = ("_segments", "_shown", "emitted", "furthest", "write")

    def __init__(self) -> None:
        self.write: Callable[[bytes], None] | None = None
        self.emitted = 0
        self.furthest = 0
        self._shown = 0
        self._segments: list[tuple[int, bytearray]] = []

    def emit(self, data: bytes, *, show: bool) -> None:
        """The guest sends ``data``; buffered as far as it is new and is to be shown."""
        start = self.emitted
        self.emitted += len(data)
        if not show or self.emitted <= self.furthest:
            return
        new = data[max(0, self.furthest - start) :]
        if self.write is not None:
            last = self._segments[-1] if self._segments else (0, bytearray())
            if self._segments and start <= self.furthest == last[0] + len(last[1]):
                last[1].extend(new)
            else:
                self._segments.append((self.emitted - len(new), bytearray(new)))
        self.furthest = self.emitted

    @property
    def pending(self) -> bool:
        return bool(self._segments)

    def flush(self) -> None:
        """Show what is buffered."""
        self._shown = self.furthest
        segments, self._segments = self._segments, []
        if self.write is not None:
            for _, data in segments:
                self.write(bytes(data))

    def forget_future(self) -> None:
        """The bytes behind ``emitted`` will never be sent (again): drop those that are not shown yet."""
        if self.emitted >= self.furthest:
            return
        self.furthest = max(self.emitted, self._shown)
        while self._segments and self._segments[-1][0] >= self.furthest:
            self._segments.pop()
        if self._segments:
            start, data = self._segments[-1]
            del data[self.furthest - start :]
