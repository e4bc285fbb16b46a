"""Fixtures of the protocol tests."""

from __future__ import annotations

import pytest

from rrgdb.rsp.session import Session
from rrgdb_tests.rsp.fake import FakeDebuggee
from rrgdb_tests.rsp.stub import Stub


@pytest.fixture
def fake() -> FakeDebuggee:
    return FakeDebuggee()


@pytest.fixture
def said() -> list[str]:
    """Console output."""
    return []


@pytest.fixture
def stub(fake: FakeDebuggee, said: list[str]) -> Stub:
    return Stub(fake, said.append)


@pytest.fixture
def session(stub: Stub) -> Session:
    return stub.session
