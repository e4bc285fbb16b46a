"""Dataclasses of rrgdb beside those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import re
import threading
import weakref
from collections.abc import Callable
from dataclasses import field
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pytest

import rrgdb
from rrgdb.data import dataclass

T = TypeVar("T")
OPTIONS = tuple(
    dict(zip(("frozen", "slots", "eq"), chosen, strict=True)) for chosen in product((False, True), repeat=3)
)
Decorator = Callable[[type], Any]


def pair(options: dict[str, bool], define: Callable[[Decorator], Any]) -> tuple[Any, Any]:
    """The same class made by rrgdb, and by the standard library."""
    return define(dataclass(**options)), define(dataclasses.dataclass(**options))


def point(decorator: Decorator) -> Any:
    @decorator
    class Point(Generic[T]):
        """A point."""

        x: int
        y: str = "why"
        many: list[int] = field(default_factory=list)
        one: int = field(default=1)
        COUNT: ClassVar[int] = 3

        @property
        def twice(self) -> int:
            return self.x * 2

    return Point


def outcome(call: Callable[[], Any]) -> Any:
    """What a call comes to, or the kind of its error."""
    try:
        return call()
    except Exception as e:
        return type(e)


def raises(call: Callable[[], Any]) -> bool:
    got = outcome(call)
    return isinstance(got, type) and issubclass(got, Exception)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_they_do_the_same(options: dict[str, bool]) -> None:
    ours, theirs = pair(options, point)

    def answers(cls: Any) -> list[Any]:
        a, b, other = cls(1), cls(1, "why", [], 1), cls(x=2, many=[5])
        return [
            outcome(cls),
            outcome(lambda: cls(1, 2, 3, 4, 5)),
            outcome(lambda: cls(1, z=5)),
            a == b,
            a != other,
            a == 1,
            outcome(lambda: hash((cls.__hash__ is None, cls.__hash__ is object.__hash__))),
            repr(other),
            str(a),
            (a.x, a.y, a.many, a.one, a.twice, a.COUNT),
            a.many is b.many,
            outcome(lambda: setattr(a, "x", 5)),
            a.x,
            raises(lambda: setattr(a, "unknown", 5)),
            outcome(lambda: delattr(b, "y")),
            raises(lambda: delattr(b, "unknown")),
            dataclasses.is_dataclass(a),
            [(f.name, f.type) for f in dataclasses.fields(a)],
            dataclasses.asdict(other),
            repr(dataclasses.replace(other, y="not")),
            outcome(lambda: cls.one),
            isinstance(outcome(lambda: cls.many), type),
            cls.__match_args__,
            cls.__name__,
            cls.__doc__,
            cls.__module__,
            hasattr(a, "__dict__"),
            getattr(cls, "__slots__", None),
            repr(copy.copy(other)),
            repr(copy.deepcopy(other)),
        ]

    def comparable(value: Any) -> Any:
        return type(value).__name__ if type(value).__name__ == "member_descriptor" else value

    for ours_, theirs_ in zip(answers(ours), answers(theirs), strict=True):
        assert comparable(ours_) == comparable(theirs_)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("first", range(6))
def test_whatever_is_used_first(options: dict[str, bool], first: int) -> None:
    def of_values(decorator: Decorator) -> Any:
        @decorator
        class Values:
            x: int
            y: int = 2

        return Values

    ours, theirs = pair(options, of_values)

    def use(cls: Any, n: int) -> Any:
        return (
            lambda: cls(1).y,
            lambda: repr(cls(1)).split(".")[-1],
            lambda: cls(1) == cls(1),
            lambda: isinstance(hash(cls(1)), int),
            lambda: len(dataclasses.fields(cls)),
            lambda: dataclasses.replace(cls(1), y=7).y,
        )[n]

    for n in (first, *range(6)):
        assert outcome(use(ours, n)) == outcome(use(theirs, n))


def test_methods_of_ones_own_stay() -> None:
    def with_methods(decorator: Decorator) -> Any:
        @decorator
        class Own:  # noqa: PLW1641 - the hash is what is looked at
            x: int

            def __repr__(self) -> str:
                return "own"

            def __eq__(self, other: object) -> bool:
                return other == "own"

        return Own

    for options in OPTIONS:
        ours, theirs = pair(options, with_methods)
        for cls in (ours, theirs):
            assert (repr(cls(1)), cls(1) == "own", cls(1) == 1) == ("own", True, False)
        assert outcome(lambda ours=ours: hash(ours(1))) == outcome(lambda theirs=theirs: hash(theirs(1)))


@dataclass(frozen=True, slots=True)
class Kept:
    name: str
    numbers: tuple[int, ...] = ()


@dataclass(slots=True, eq=False, weakref_slot=True)
class Held:
    name: str


def test_they_are_pickled() -> None:
    kept = Kept("a", (1, 2))
    again = pickle.loads(pickle.dumps(kept))
    assert (again, hash(again), again.numbers) == (kept, hash(kept), (1, 2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        again.name = "b"  # type: ignore[misc]
    held = pickle.loads(pickle.dumps(Held("c")))
    assert held.name == "c"


def test_a_weak_reference() -> None:
    held = Held("a")
    reference = weakref.ref(held)
    assert reference() is held
    del held
    gc.collect()
    assert reference() is None


def test_threads_that_come_at_once() -> None:
    for _ in range(50):

        @dataclass(frozen=True)
        class Raced:
            x: int
            y: int = 2

        ready, found = threading.Barrier(4), list[Any]()

        def use(cls: Any = Raced, ready: threading.Barrier = ready, found: list[Any] = found) -> None:
            ready.wait()
            found.append((cls(1) == cls(1), hash(cls(1)), repr(cls(1)), cls(1).y))

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert len(set(found)) == 1


def test_one_does_not_inherit_from_another() -> None:
    with pytest.raises(TypeError, match="Under: expected no dataclass as a base"):

        @dataclass
        class Under(Held):
            more: int


def test_all_of_rrgdb_has_them() -> None:
    root = Path(rrgdb.__file__).parent
    for file in root.rglob("*.py"):
        if file.relative_to(root).parts[0] not in ("qcow2", "data.py"):
            assert not re.search(
                r"^from dataclasses import .*\bdataclass\b|^import dataclasses", file.read_text(), re.M
            ), file
