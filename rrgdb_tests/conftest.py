"""Fixtures for all tests: the guests."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rrgdb_tests import guests


@pytest.fixture(scope="session")
def guest() -> Callable[..., Path]:
    """``guests.build`` as a fixture: ``guest(arch, name, …)`` builds a program of ``rrgdb_tests/guests`` (cached)."""
    return guests.build


@pytest.fixture(scope="module", autouse=True)
def _nothing_kept_from_other_modules() -> Iterator[None]:
    """Guests that a module leaves behind hold open files until they are collected."""
    yield
    gc.collect()
