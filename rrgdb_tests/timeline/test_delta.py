"""Maps of pages against plain dictionaries."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from rrgdb.engine.memory import PAGE, ZERO_PAGE
from rrgdb.timeline.checkpoints import Checkpoints, Mark
from rrgdb.timeline.delta import Delta

CONTENTS = [bytes([n]) * 4096 for n in range(4)]
WRITES = st.dictionaries(st.integers(0, 200), st.sampled_from(CONTENTS), max_size=20)


def _history(writes: list[dict[int, bytes]]) -> list[tuple[Delta, dict[int, bytes]]]:
    made = [(Delta(), {})]
    for write in writes:
        delta, model = made[-1]
        # Fresh objects: equal contents are not the same ones.
        made.append((delta.with_pages(write, [bytes(bytearray(c)) for c in write.values()]), {**model, **write}))
    return made


@given(st.lists(WRITES, max_size=6))
def test_deltas_are_dictionaries(writes: list[dict[int, bytes]]) -> None:
    made = _history(writes)
    for delta, model in made:
        assert delta.pages() == model
        assert len(delta) == len(model)
        for n in range(0, 210, 7):
            assert delta.get(n) == model.get(n)
            assert (n in delta) == (n in model)
        for other, theirs in made:
            expected = {n for n in model.keys() | theirs.keys() if model.get(n) != theirs.get(n)}
            found = delta.differing(other)
            assert expected <= found == other.differing(delta)
    for (one, model), (two, after) in pairwise(made):
        # What one was made from the other by differs in nothing that stayed equal.
        assert one.differing(two) == {n for n in after if model.get(n) != after[n]}


@given(st.lists(WRITES, min_size=1, max_size=8), st.randoms())
def test_memory_is_counted_once_for_all_that_share_it(writes: list[dict[int, bytes]], random: Random) -> None:
    memory = Checkpoints()
    marks = [Mark(i, None, None, delta) for i, (delta, _) in enumerate(_history(writes))]
    for mark in random.sample(marks, len(marks)):
        memory.insert(mark)
    assert [m.icount for m in memory.marks] == list(range(len(marks)))
    for left in range(len(marks), 0, -1):
        contents = {id(c) for m in memory.marks for c in m.delta.pages().values()}
        chunks = {id(c): len(c) for m in memory.marks for c in m.delta.chunks.values()}
        own = sum(1000 + 100 * len(m.delta.chunks) for m in memory.marks)
        assert memory.bytes == 4096 * len(contents) + 100 * sum(chunks.values()) + own
        memory.remove(random.randrange(left))
    assert memory.bytes == 0


def test_a_mark_that_alone_is_more_than_the_budget_does_not_fit() -> None:
    """Pages of zeros are one object, and take nothing."""
    full = Delta().with_pages(range(100), [bytes([n + 1]) * PAGE for n in range(100)])
    zeros = Delta().with_pages(range(100), [ZERO_PAGE] * 100)
    assert Mark(0, None, None, full).fits(100 * PAGE)
    assert not Mark(0, None, None, full).fits(99 * PAGE)
    assert not Mark(0, None, None, zeros, blocks=full).fits(99 * PAGE)
    assert Mark(0, None, None, zeros).fits(0)
