"""Fixtures of the end-to-end tests: one recording of the ticker a family, and a gdb at its replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rrgdb_tests import guests
from rrgdb_tests.e2e.harness import Gdb, Server, debugging, rrgdb

TICKS = 10
WORK = 200
TICKER = {"TICKS": TICKS, "WORK": WORK}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(params=guests.ARCHES)
def arch(request: pytest.FixtureRequest) -> str:
    """Each family in turn."""
    return str(request.param)


@pytest.fixture
def ticker(arch: str) -> Path:
    """The ticker's ELF: 10 ticks, some 25,000 instructions."""
    return guests.build(arch, "ticker", TICKER)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """``recordings(image)`` records ``image`` from start to power-off, once a session."""
    made: dict[Path, Path] = {}

    def record(image: Path) -> Path:
        if image not in made:
            path = tmp_path_factory.mktemp("recording") / f"{image.parent.name}.rrgdb"
            arch = image.parent.name.split("-")[0]
            rrgdb("record", "-o", path, image, status=guests.exit_status(arch, 0))
            made[image] = path
        return made[image]

    return record


@pytest.fixture
def recording(ticker: Path, recordings: Callable[[Path], Path]) -> Path:
    """The finished recording of the ticker."""
    return recordings(ticker)


@pytest.fixture
def replay(ticker: Path, recording: Path) -> Iterator[Gdb]:
    """gdb at the beginning of the ticker's recording."""
    with debugging(ticker, "replay", recording) as gdb:
        yield gdb


@pytest.fixture
def live(ticker: Path, tmp_path: Path) -> Iterator[Gdb]:
    """gdb at a ticker that is being recorded, at its first instruction."""
    with debugging(ticker, "run", "-o", tmp_path / "live.rrgdb", ticker) as gdb:
        yield gdb


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """``start(*arguments, stdin=False)`` starts an rrgdb that is killed after the test."""
    with ExitStack() as stack:
        yield lambda *arguments, stdin=False: stack.enter_context(Server(*arguments, stdin=stdin))


@pytest.fixture
def gdb() -> Iterator[Callable[..., Gdb]]:
    """``gdb(image, commands=())`` starts a gdb that is ended after the test."""
    with ExitStack() as stack:
        yield lambda image=None, commands=(): stack.enter_context(Gdb(image, commands=commands))
