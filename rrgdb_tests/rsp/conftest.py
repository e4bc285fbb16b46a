"""Fixtures of the protocol tests."""

from __future__ import annotations

import pytest

from rrgdb.rsp.session import Session
from rrgdb_tests.rsp.fake import FakeDebuggee


@pytest.fixture
def fake() -> FakeDebuggee:
    return FakeDebuggee()


@pytest.fixture
def said() -> list[str]:
    """Console output."""
    return []


@pytest.fixture
def session(fake: FakeDebuggee, said: list[str]) -> Session:
    return Session(fake, said.append)
