"""The state blob: what goes in comes out, and anything else is refused."""

from __future__ import annotations

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from rrgdb.snapshots.state import MAX_BYTES, GuestState, StateError

STATES = st.builds(
    GuestState,
    build=st.text(max_size=20),
    cpu=st.binary(max_size=100),
    devices=st.binary(max_size=100),
    door=st.binary(max_size=100),
    ram_bytes=st.integers(0, (1 << 64) - 1),
    ram_digest=st.binary(min_size=8, max_size=8),
)


@given(STATES)
def test_round_trip(state: GuestState) -> None:
    assert GuestState.decode(state.encode()) == state


@given(STATES, st.data())
def test_damage_is_refused(state: GuestState, data: st.DataObject) -> None:
    blob = bytearray(state.encode())
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(StateError):
        GuestState.decode(bytes(blob))
    with pytest.raises(StateError):
        GuestState.decode(state.encode()[: data.draw(st.integers(0, len(blob) - 1))])


@given(STATES, st.data())
def test_hostile_bytes_with_a_right_checksum(state: GuestState, data: st.DataObject) -> None:
    body = bytearray(state.encode()[:-8])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(len(body) // 2, len(body)))]
    try:
        decoded = GuestState.decode(bytes(body) + xxhash.xxh3_64_digest(bytes(body)))
    except StateError:
        return
    assert decoded.encode()[:-8] == bytes(body)


@given(st.binary(max_size=200))
def test_any_bytes(blob: bytes) -> None:
    with pytest.raises(StateError):
        GuestState.decode(blob)


def test_a_state_that_is_too_long() -> None:
    with pytest.raises(StateError, match="at most"):
        GuestState("", bytes(MAX_BYTES), b"", b"", 0, bytes(8)).encode()
    largest = GuestState("", bytes(MAX_BYTES - 64), b"", b"", 0, bytes(8))
    assert GuestState.decode(largest.encode()) == largest
