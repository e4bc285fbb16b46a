"""Registers that Unicorn lacks (``Arch.kept_registers``, ``Interrupts.registers``), kept beside its context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice

_BYTES = 8


class KeptRegisters:
    """``values``, by name, and ``state``, the same as bytes: u64 each, in the order of the names; the ``later`` ones
    are left out of it while they are all 0. A dictionary of values is replaced when one changes, and never changed
    itself."""

    def __init__(self, bits: Mapping[str, int], later: Mapping[str, int]) -> None:
        """``bits``, ``later``: names and widths. All are 0."""
        self._bits = {**bits, **later}
        self._first = len(bits)
        self.take(dict.fromkeys(self._bits, 0))

    def take(self, values: Mapping[str, int]) -> None:
        self.values = values
        self._state: bytes | None = None

    @property
    def added(self) -> bool:
        """Whether any of the later ones is not 0."""
        return any(islice(self.values.values(), self._first, None))

    @property
    def state(self) -> bytes:
        # Registers change far more often than somebody asks for this.
        if self._state is None:
            words = [value.to_bytes(_BYTES, "little") for value in self.values.values()]
            self._state = b"".join(words if self.added else words[: self._first])
        return self._state

    def write(self, name: str, value: int) -> None:
        value &= (1 << self._bits[name]) - 1
        if value != self.values[name]:
            self.take({**self.values, name: value})

    def fits(self, size: int) -> bool:
        """Whether so many bytes can be a saved ``state``; those of behaviour 1 have none."""
        return size in (0, _BYTES * self._first, _BYTES * len(self._bits))

    def unpack(self, state: bytes, old: Callable[[], Mapping[str, int]]) -> Mapping[str, int]:
        """The values of a saved ``state`` that fits; ``old`` finds those of behaviour 1."""
        if state == self.state:
            return self.values
        if not state and self._first:
            return dict.fromkeys(self._bits, 0) | dict(old())
        values = [int.from_bytes(state[at : at + _BYTES], "little") for at in range(0, len(state), _BYTES)]
        return dict(zip(self._bits, values + [0] * (len(self._bits) - len(values)), strict=True))
