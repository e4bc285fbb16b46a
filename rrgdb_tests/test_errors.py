"""One root for all errors on purpose; what the command line makes of them and of everything else."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rrgdb
from rrgdb import opening
from rrgdb.cli import main as cli
from rrgdb.engine.base import EngineError
from rrgdb.errors import Error, UsageError
from rrgdb.opening import OptionError, record
from rrgdb.recording import manifest as manifests
from rrgdb.recording.door import Door
from rrgdb.timeline.stop import Points
from rrgdb_tests import guests
from rrgdb_tests.timeline.oracle import OPTIONS

GUESTS = {"IllegalInstruction", "Lockup", "Failure", "QueueError"}
"""what a guest did wrong, which it is told; no user hears of them"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """``run(*arguments)`` is ``rrgdb ARGUMENTS``: its status and what it says on stderr."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["rrgdb", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capfd.readouterr().err

    return run


def _image() -> Path:
    return guests.build("riscv64", "status")


def test_every_error_has_the_one_root() -> None:
    found = set()
    for module in pkgutil.walk_packages(rrgdb.__path__, "rrgdb."):
        if module.name.startswith("rrgdb.qcow2") or module.name.endswith("__main__"):
            continue
        for _, each in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(each, Exception) and each.__module__.startswith("rrgdb."):
                found.add(each)
    stray = {e.__name__ for e in found if not issubclass(e, Error) and not e.__module__.startswith("rrgdb.qcow2")}
    assert stray == GUESTS
    assert len(found) > 20


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (EngineError("what it is"), 1, "rrgdb: what it is\n"),
        (OptionError("-x: what it is"), 2, "rrgdb: -x: what it is\n"),
        (UsageError("two\nlines"), 2, "rrgdb: two lines\n"),
        (FileNotFoundError(2, "No such file or directory", "here"), 1, "rrgdb: here: No such file or directory\n"),
        (OSError(12, "Cannot allocate memory"), 1, "rrgdb: Cannot allocate memory\n"),
        (MemoryError(), 1, "rrgdb: not enough memory\n"),
        (ExceptionGroup("of one", [MemoryError()]), 1, "rrgdb: not enough memory\n"),
        (ValueError("a fault"), 1, "rrgdb: internal error (ValueError: a fault): please report it"),
        (KeyError("lost"), 1, "rrgdb: internal error (KeyError: 'lost'): please report it"),
        (AssertionError(), 1, "rrgdb: internal error (AssertionError): please report it"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@pytest.mark.parametrize("debug", [False, True])
def test_whatever_a_verb_raises_is_one_line(
    error: Exception, status: int, said: str, debug: bool, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr("rrgdb.cli.verbs.verify.replay", fail)
    got, heard = run(*["--debug"] * debug, "verify", "x.rrgdb")
    assert got == status
    *before, last = heard.splitlines()
    assert (last + "\n").startswith(said)
    assert bool(before) == debug
    assert ("Traceback" in heard) == debug


def test_a_thread_that_fails_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        def lose() -> None:
            raise KeyError("lost")

        thread = threading.Thread(target=lose)
        thread.start()
        thread.join()
        raise OptionError("behind it")

    monkeypatch.setattr("rrgdb.cli.verbs.verify.replay", fail)
    status, heard = run("verify", "x.rrgdb")
    assert status == 2
    assert heard.splitlines()[0].startswith("rrgdb: internal error (KeyError: 'lost')")
    assert heard.splitlines()[1:] == ["rrgdb: behind it"]


def test_memory_that_runs_out_in_a_device(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised in a callback of the engine; what was recorded until then is whole."""

    def fail(*_args: Any) -> None:
        raise MemoryError

    image = guests.build("riscv64", "ticker", {"TICKS": 10, "WORK": 200})
    with monkeypatch.context() as patch:
        patch.setattr(Door, "output", fail)
        status, heard = run("record", "-o", tmp_path / "r", image)
    assert (status, heard.splitlines()[1:]) == (1, ["rrgdb: not enough memory"])
    with opening.replay(tmp_path / "r") as opened:
        assert opened.recording.manifest.log_bytes


@pytest.mark.parametrize(
    "arguments",
    [
        ["record", "--debug-me-not", "IMAGE"],
        ["record", "-M", "vax", "IMAGE"],
        ["record", "--cpu", "80286", "IMAGE"],
        ["record", "-m", "1", "-M", "i386-pc", "--load", "0x100000", "IMAGE"],
        ["record", "--load", "0x80000000", "IMAGE"],
        ["record", "--entry", "0x80000000", "IMAGE"],
        ["record", "-M", "riscv64-virt", "--load", "0x10000000000000000", "IMAGE"],
        ["record", "-M", "riscv64-virt", "--load", "0x80000000", "--entry", "0", "IMAGE"],
        ["record", "--rrsnapshot", "auto-1", "IMAGE"],
        ["record", "--timeout", "inf", "IMAGE"],
        ["record", "--timeout", "nan", "IMAGE"],
        ["record", "--timeout", "1e300", "IMAGE"],
        ["record", "--snapshot-interval", "nan", "IMAGE"],
        ["record", "IMAGE", "one\ntwo"],
        ["record", "IMAGE", "x" * 70000],
    ],
    ids=" ".join,
)
def test_what_does_not_fit_is_usage_and_names_what_was_typed(arguments: list[str], run: Run, tmp_path: Path) -> None:
    verb, *rest = (str(_image()) if word == "IMAGE" else word for word in arguments)
    status, heard = run(verb, "-o", tmp_path / "r", *rest)
    assert status == 2
    assert "Traceback" not in heard
    assert "manifest" not in heard
    assert not (tmp_path / "r").exists()


def test_debug_is_not_taken_from_the_guests_arguments(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise EngineError("no")

    monkeypatch.setattr("rrgdb.cli.verbs.live.record", fail)
    for arguments in (["run", "x.elf", "--debug"], ["record", "x.elf", "--", "--debug"], ["run", "--", "x", "--debug"]):
        assert run(*arguments) == (1, "rrgdb: no\n")
    assert "Traceback" in run("--debug", "run", "x.elf")[1]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("errors") / "r"
    with record(path, _image(), OPTIONS) as opened:
        opened.timeline.run(Points({}))
    return path


def _set(guest: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        where, at = guest, key.split(".")
        for part in at[:-1]:
            where = where[int(part) if part.isdigit() else part]
        where[at[-1]] = value


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("guest.board", {"board": "vax"}),
        ("guest.cpu", {"cpu": "80286"}),
        ("guest.ram_bytes", {"ram_bytes": 1}),
        ("guest.ram_bytes", {"ram_bytes": 1 << 40}),
        ("guest.images", {"images": []}),
        ("guest.images[0]", {"board": "i386-pc", "revision": 1}),
        ("guest.images[0]", {"images.0.load_address": 1 << 63}),
        ("guest.images[0]", {"images.0.load_address": 0}),
        ("guest.images[0]", {"images.0.load_address": 0x80000000, "options.entry": 0}),
        ("guest.options.entry", {"options.entry": 0x80000000}),
        ("guest.options.entry", {"images.0.load_address": 0x80000000, "options.entry": "start"}),
        ("guest.options.args", {"options.args": 7}),
        (
            "guest.disks",
            {
                "disks": [
                    {"name": f"d{i}", "path": "/d", "format": "raw", "size": 512, "mtime_ns": 0, "readonly": True}
                    for i in range(9)
                ]
            },
        ),
        ("guest.images", {"kind": "script"}),
        ("guest.board", {"kind": "script", "images": []}),
        ("guest.cpu", {"kind": "script", "images": [], "board": "riscv64"}),
        ("guest.cpu", {"kind": "script", "images": [], "board": "riscv64", "cpu": "99999"}),
        ("guest.cpu", {"kind": "script", "images": [], "board": "riscv64", "cpu": "9" * 200}),
        ("guest.ram_bytes", {"kind": "script", "images": [], "board": "riscv64", "cpu": "1", "ram_bytes": 4097}),
        ("guest.ram_bytes", {"kind": "script", "images": [], "board": "riscv64", "cpu": "1", "ram_bytes": 0}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else value,
)
def test_an_error_in_a_manifest_names_file_and_field(
    field: str, changes: dict[str, Any], recording: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recording / "manifest.json"
    value = json.loads(path.read_text())
    _set(value["guest"], changes)
    made = manifests.parse(json.dumps(value).encode(), path)
    monkeypatch.setattr(manifests, "read", lambda _path: made)
    for verb in (["verify"], ["info"], ["snapshot", "list"], ["replay"]):
        status, heard = run(*verb, recording)
        assert status == 1
        assert heard.startswith(f"rrgdb: {path}: {field}: expected ")
        assert heard.count("\n") == 1
        assert " -M" not in heard
        assert " --" not in heard
