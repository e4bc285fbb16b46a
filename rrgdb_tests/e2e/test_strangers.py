"""A page in a browser, or anything else that is no debugger, at the port of a stub."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rrgdb
from rrgdb_tests import guests
from rrgdb_tests.e2e.conftest import TICKER
from rrgdb_tests.e2e.harness import Gdb, Server
from rrgdb_tests.e2e.harness import rrgdb as rrgdb_command
from rrgdb_tests.e2e.rsp_client import RspClient

SCRIPT = Path(rrgdb.__file__).parent.parent / "docs" / "attach_example.py"
PACKETS = b"".join(b"$%b#%02x" % (packet, sum(packet) & 0xFF) for packet in (b"QStartNoAckMode", b"s", b"k"))
SAID = [
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1:1234\r\nContent-Type: text/plain\r\n\r\n" + PACKETS,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + PACKETS,
    b"+GET / HTTP/1.1\r\n\r\n" + PACKETS,
    bytes(range(256)) * 64,
]
ARCH = "riscv64"


def visit(server: Server) -> bytes:
    """What strangers hear until they are hung up on."""
    heard = b""
    for said in SAID:
        with server.connect() as link, contextlib.suppress(ConnectionResetError, BrokenPipeError):
            link.sendall(said)
            while data := link.recv(4096):
                heard += data
    return heard


@pytest.fixture(params=["run", "replay", "attach"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, recordings: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A stub that ends with its first debugger; its recording is, or will be, ``guest.rrgdb`` here."""
    monkeypatch.chdir(tmp_path)
    image = guests.build(ARCH, "ticker", TICKER)
    if request.param == "attach":
        with Server(command=[sys.executable, "-u", str(SCRIPT), "127.0.0.1:0"]) as script:
            yield script
        return
    verb, what = ("run", ("-o", "guest.rrgdb", image)) if request.param == "run" else ("replay", (recordings(image),))
    with Server(verb, "--once", "--gdb", "127.0.0.1:0", *what) as server:
        yield server


def test_pages_in_a_browser_do_nothing_to_a_gdb_and_its_guest(server: Server) -> None:
    assert visit(server) == b""
    with Gdb(None) as gdb:
        gdb.connect(server.address)
        assert gdb.icount == 0
        gdb.stepi()
        assert visit(server) == b""
        assert gdb.icount == 1
        gdb.stepi()
        gdb.stepi(reverse=True)
        assert gdb.icount == 1
        gdb.command("-target-detach")
    assert server.log.count("dropped:") == 2 * len(SAID)
    assert "Traceback" not in server.log


def test_the_recording_is_whole_after_strangers(tmp_path: Path) -> None:
    image = guests.build(ARCH, "ticker", TICKER)
    with Server("run", "--once", "--gdb", "127.0.0.1:0", "-o", tmp_path / "guest.rrgdb", image) as server:
        with RspClient(server.connect()) as client:
            assert client.ask(b"?").startswith(b"T05")
            visit(server)
            assert client.ask(b"c").startswith(b"T05replaylog:end")
            visit(server)
        assert server.wait_exit() == guests.exit_status(ARCH, 0)
    rrgdb_command("verify", "--jobs", 1, tmp_path / "guest.rrgdb")
