"""Names that a recording holds may be anything: they are shown escaped, and none is an internal error."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrgdb import opening
from rrgdb.cli.main import main
from rrgdb.opening import at_rest, record
from rrgdb.qcow2 import Image
from rrgdb.qcow2.cli import main as qcow2
from rrgdb.recording.events import Event, EventKind
from rrgdb.recording.log import EventLog
from rrgdb.target import Target
from rrgdb.text import attribute, shown
from rrgdb.timeline.stop import Points
from rrgdb_tests.guests import build
from rrgdb_tests.rsp.stub import Stub
from rrgdb_tests.timeline.oracle import OPTIONS

HOSTILE = [
    "\x1b[31mred\x1b]0;\x07",
    "two\nlines\rover",
    "\u202etxt.exe\u2066",
    "not\udcff\udc80utf-8",
    "\x00",
    "a\x9b2J",
]
SHOWN = [
    r"\x1b[31mred\x1b]0;\x07",
    r"two\nlines\rover",
    r"\u202etxt.exe\u2066",
    r"not\xff\x80utf-8",
    r"\x00",
    r"a\x9b2J",
]
Run = Callable[..., str]


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_what_is_shown_is_one_printable_line(text: str) -> None:
    assert shown(text).isprintable()
    shown(text).encode()
    assert shown(text) == text or not text.isprintable()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snapshots with such names, events of such sources, and an end of such text."""
    path = tmp_path_factory.mktemp("names") / "r"
    with record(path, build("riscv64", "ticker"), OPTIONS) as opened:
        for n in range(len(HOSTILE)):
            opened.timeline.run(Points({}), steps=100)
            opened.timeline.marks.take_snapshot(f"s{n}")
    with Image.open(path / "snapshots.qcow2", writable=True) as image:
        start, *others = image.snapshots
        named = [replace(s, name=name) for s, name in zip(others, HOSTILE, strict=True)]
        image._require_writer().replace_snapshots([start, *named])
    log = EventLog.open(path / "events.log", writable=True)
    log.append(Event(log.horizon, EventKind.INPUT, "serial\x1b[2J\n\u202e", b"x"))
    log.append(Event(log.horizon, EventKind.END, "guest", b"exit:0\x1b[31m\xff\n"))
    log.close_chunk(log.horizon)
    size = log.size
    log.close()
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"log_bytes": size}))
    return path


@pytest.fixture
def ours(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "r\x1b[31m\u202e"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """What ``rrgdb ARGUMENTS`` prints on both streams, all of it printable lines."""

    def run(*arguments: object, status: int = 0, lines: int | None = None) -> str:
        monkeypatch.setattr(sys, "argv", ["rrgdb", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        said = captured.out + captured.err
        assert (ended.value.code or 0) == status, said
        assert all(line.isprintable() for line in said.split("\n"))
        assert lines is None or said.count("\n") == lines
        said.encode()
        return said

    return run


def test_the_command_line(ours: Path, run: Run, tmp_path: Path) -> None:
    for verb in (("snapshot", "list"), ("info",)):
        text = run(*verb, ours)
        assert all(name in text for name in SHOWN)
        assert json.loads(run(*verb, "--json", ours))
    assert [row["name"] for row in json.loads(run("snapshot", "list", "--json", ours))] == ["start", *HOSTILE]
    text = run("info", ours)
    assert r"serial\x1b[2J\n\u202e" in text
    assert r"end: exit:0\x1b[31m\xff\n" in text
    # As it is, or as it is shown.
    assert r"core\n" in run("snapshot", "export", ours, HOSTILE[0], tmp_path / "core\n", lines=1)
    run("snapshot", "export", ours, SHOWN[3], tmp_path / "core", lines=1)
    assert "2 snapshots deleted" in run("snapshot", "delete", ours, SHOWN[1], HOSTILE[2], lines=1)
    assert r"no snapshot \x1b[1m" in run("snapshot", "delete", ours, "\x1b[1m", status=1, lines=1)
    run("verify", ours, status=1, lines=1)  # the end is another one
    # Where a snapshot with such a name turns out damaged.
    store = ours / "snapshots.qcow2"
    with Image.open(store) as image:
        blob = image.view(image.snapshots[-1]).read_vmstate_clusters([0])[0]
    data = store.read_bytes()
    store.write_bytes(data.replace(blob, b"\xff" * 4096))
    assert r"snapshot a\x9b2J: " in run("snapshot", "list", ours)


def test_a_debugger(original: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(original, tmp_path / "r\udcff\x1b"))
    with opening.replay(path) as opened:
        console: list[str] = []
        stub = Stub(Target(opened), console.append)
        stub.handle(b"qSupported:error-message+;qXfer:features:read+")

        def monitor(line: str) -> str:
            answer = stub.handle(b"qRcmd," + line.encode("utf-8", "surrogateescape").hex().encode())
            assert not answer.startswith(b"F")
            told = bytes.fromhex(answer.decode()).decode() if not answer.startswith((b"E", b"OK")) else answer.decode()
            assert all(line.isprintable() for line in told.split("\n"))
            return told

        text = monitor("info snapshots")
        assert all(name in text for name in SHOWN)
        assert r"r\xff\x1b" in monitor("info replay")
        assert r"serial\x1b[2J\n\u202e" in monitor("info events")
        assert "icount 100\n" in monitor(f"loadvm {SHOWN[0]}")
        assert "deleted" in monitor(f"delvm {SHOWN[3]}")
        assert monitor("loadvm \x1b[2J").startswith("E")
        assert stub.handle(b"qXfer:exec-file:read::0,1000").startswith(b"l")
        opened.timeline.say("snapshot \x1b[2J\n\u202e: passed over\n")


def test_qcow2_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "a\x1b.qcow2"
    with Image.create(image, 512) as made:
        for name in HOSTILE:
            made.create_snapshot(name)
        made.rebase("file:\x1b[2J\n\u202enone", "raw", unsafe=True)
    for verb in (("info",), ("snapshot",), ("snapshot", "-d", "\x1b"), ("map",), ("check",), ("info", "--output=json")):
        qcow2([*verb, str(image)])
        said = capsys.readouterr()
        assert all(line.isprintable() for line in (said.out + said.err).split("\n"))
        if verb in (("info",), ("snapshot",)):
            assert all(name in said.out for name in SHOWN)


def test_messages_are_a_line_each_for_users_of_the_library_too(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_rest, "_of_recording", lambda *_: [f"snapshot {name} is passed over" for name in HOSTILE])
    with opening.replay(original, writable=False) as opened:
        assert opened.messages == tuple(f"snapshot {name} is passed over" for name in SHOWN)


@given(st.text(st.sampled_from("&<>\"'\n\r\t ") | st.characters(exclude_categories=("C",))))
def test_an_attribute_of_xml(text: str) -> None:
    assert ElementTree.fromstring(f"<x a={attribute(text)}/>").get("a") == text
