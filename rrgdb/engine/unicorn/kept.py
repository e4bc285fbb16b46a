"""Registers that Unicorn lacks (``Arch.kept_registers``), kept beside its context."""

from __future__ import annotations

from collections.abc import Callable, Mapping

_BYTES = 8


class KeptRegisters:
    """``values``, by name, and ``state``, the same as bytes: u64 each, in the order of the names. A dictionary of
    values is replaced when one changes, and never changed itself."""

    def __init__(self, bits: Mapping[str, int]) -> None:
        """``bits``: names and widths. All are 0."""
        self._bits = bits
        self.take(dict.fromkeys(bits, 0))

    def take(self, values: Mapping[str, int]) -> None:
        self.values = values
        self.state = b"".join(value.to_bytes(_BYTES, "little") for value in values.values())

    def write(self, name: str, value: int) -> None:
        self.take({**self.values, name: value & (1 << self._bits[name]) - 1})

    def fits(self, size: int) -> bool:
        """Whether so many bytes can be a saved ``state``; those of behaviour 1 have none."""
        return size in (0, _BYTES * len(self._bits))

    def unpack(self, state: bytes, old: Callable[[], Mapping[str, int]]) -> Mapping[str, int]:
        """The values of a saved ``state`` that fits; ``old`` finds those of behaviour 1."""
        if not state:
            return dict.fromkeys(self._bits, 0) | dict(old())
        if state == self.state:
            return self.values
        values = (int.from_bytes(state[at : at + _BYTES], "little") for at in range(0, len(state), _BYTES))
        return dict(zip(self._bits, values, strict=True))
