"""Fixtures for all tests: the guests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rrgdb_tests import guests


@pytest.fixture(scope="session")
def guest() -> Callable[..., Path]:
    """``guests.build`` as a fixture: ``guest(arch, name, …)`` builds a program of ``rrgdb_tests/guests`` (cached)."""
    return guests.build
