"""Fixtures for all tests: the guests."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rrgdb_tests import guests


def pytest_configure() -> None:
    """Whatever started the tests may ignore signals (nohup, a shell's background jobs): what they start would, too."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def guest() -> Callable[..., Path]:
    """``guests.build`` as a fixture: ``guest(arch, name, …)`` builds a program of ``rrgdb_tests/guests`` (cached)."""
    return guests.build


@pytest.fixture(scope="module", autouse=True)
def _nothing_kept_from_other_modules() -> Iterator[None]:
    """Guests that a module leaves behind hold open files until they are collected."""
    yield
    gc.collect()
