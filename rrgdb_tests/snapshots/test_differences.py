"""What is remembered of the pages in which snapshots differ."""

from __future__ import annotations

import numpy as np
import pytest

from rrgdb.snapshots import differences
from rrgdb.snapshots.differences import Differences


def test_a_pair_is_known_in_either_order() -> None:
    known = Differences()
    known.put("2", "10", np.array([3, 5]))
    for found in (known.get("2", "10"), known.get("10", "2")):
        assert found is not None
        assert found.tolist() == [3, 5]
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 1
    assert known.get("2", "2") is None
    known.put("10", "2", np.array([7]))
    found = known.get("2", "10")
    assert found is not None
    assert found.tolist() == [7]


def test_the_numbers_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "_MOST_NUMBERS", 100)
    known = Differences()
    for turn in range(20):
        known.put("base", f"{turn}", np.arange(30))
        assert known.get("base", "0") is not None, "it was just asked for"
    assert [turn for turn in range(20) if known.get("base", f"{turn}") is not None] == [0, 18, 19]
    known.put("a", "b", np.arange(101))
    assert known.get("a", "b") is None
    assert known.get("base", "19") is None, "one that is too large pushes all others out"
