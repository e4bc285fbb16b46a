"""What a command imports: time to start is mostly that."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from rrgdb.cli.early import importing
from rrgdb.lazy import Imported, offered
from rrgdb_tests.guests import build

HEAVY = ("numpy", "unicorn", "zstandard", "xxhash", "trio", "rich", "capstone", "elftools", "subprocess", "socket")
"""what nobody waits for who asks what the options are"""
RARE = ("rich", "capstone", "elftools", "multiprocessing", "numpy.ma", "importlib.metadata", "xml", "rrgdb.script")
"""what no ordinary run of a guest needs"""
OTHERS = ("rrgdb.arch.x86", "rrgdb.arch.arm", "rrgdb.engine.unicorn.families.aarch64", "rrgdb.board.boards.pc")
"""of CPU families that the guest is not of"""
MODULES = """
import json, sys
sys.argv[0] = "rrgdb"
from rrgdb.cli.early import importing
with importing():
    from rrgdb.cli.main import main
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]), file=sys.stderr)
"""


def imported(*arguments: str | Path, asked: bytes = b"") -> tuple[object, set[str]]:
    """The status of an rrgdb command, and the modules that it has imported by its end."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", MODULES, *map(str, arguments)],
        input=asked,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": ""},
        check=True,
        timeout=100,
    )
    status, modules = json.loads(done.stderr.splitlines()[-1])
    return status, set(modules)


@pytest.mark.parametrize(
    ("module", "other"),
    [
        ("rrgdb.engine.unicorn.families.aarch64", "rrgdb.engine.unicorn.families.arm"),
        ("rrgdb.board.boards.riscv_virt", "rrgdb.board.boards.arm_virt"),
        ("rrgdb.board.devices.uart.ns16550", "rrgdb.board.devices.uart.pl011"),
        ("rrgdb.opening", "rrgdb.opening.live"),
        ("rrgdb.qcow2", "rrgdb.qcow2.image"),
        ("rrgdb.qcow2.image", "rrgdb.qcow2.check"),
        ("rrgdb", "rrgdb.api"),
    ],
)
def test_one_does_not_import_the_other(module: str, other: str) -> None:
    text = f"import sys, {module}; sys.exit({other!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", text], check=False, timeout=100).returncode == 0


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A recording, and what was imported to make it."""
    path = tmp_path_factory.mktemp("start") / "r.rrgdb"
    image = build("riscv64", "ticker", {"TICKS": 10, "WORK": 200})
    status, modules = imported("record", "-o", path, "--max-icount", "1000", image)
    assert status == 0
    return path, modules


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["run", "--help"], 0),
        (["snapshot", "export", "--help"], 0),
        (["nothing"], 2),
        (["record", "--max-icount", "many", "x.elf"], 2),
        (["replay", "--gdb", "nowhere", "x"], 2),
    ],
)
def test_to_be_told_of_options_imports_nothing_of_guests(arguments: list[str], status: int) -> None:
    got, modules = imported(*arguments)
    assert got == status
    assert "click" in modules
    assert modules.isdisjoint(HEAVY)


def test_a_recording_imports_its_own_family_and_no_debugger(recording: tuple[Path, set[str]]) -> None:
    modules = recording[1]
    assert {"rrgdb.arch.riscv", "rrgdb.board.boards.riscv_virt", "rrgdb.engine.unicorn.engine"} <= modules
    assert modules.isdisjoint((*RARE, *OTHERS, "trio", "rrgdb.target", "rrgdb.rsp.session"))


def test_a_replay_imports_what_serves_packets(recording: tuple[Path, set[str]]) -> None:
    status, modules = imported("replay", recording[0], "--gdb", "stdio", asked=b"$?#3f")
    assert not status
    assert {"trio", "rrgdb.rsp.session", "rrgdb.arch.riscv"} <= modules
    assert modules.isdisjoint((*RARE, *OTHERS, "rrgdb.rsp.monitor"))


def test_garbage_is_collected_again() -> None:
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()


def test_what_was_garbage_before_is_found_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where a process does one command, which ends before there is any."""
    for alone in (False, True):
        monkeypatch.setattr("rrgdb.cli.early._alone", [True] * alone)
        circle: list[object] = []
        circle.append(circle)
        lost = weakref.ref(held := Held(circle))
        circle.append(held)
        del circle, held
        try:
            with importing():
                pass
            gc.collect()
            assert (lost() is not None) == alone
        finally:
            gc.unfreeze()


class Held:
    def __init__(self, by: object) -> None:
        self.by = by


def test_a_table_of_what_is_imported_when_asked_for() -> None:
    table: Imported[object] = Imported({"path": "pathlib:Path", "nothing": "rrgdb.no_such_module:x"})
    assert list(table) == ["path", "nothing"]
    assert "nothing" in table
    assert "other" not in table
    assert (table["path"], table.get("other")) == (Path, None)
    with pytest.raises(ImportError):
        table["nothing"]
    table["nothing"] = 5
    table["other"] = 6
    assert dict(table) == {"path": Path, "nothing": 5, "other": 6}
    del table["nothing"]
    assert (len(table), table.pop("other"), len(table)) == (2, 6, 1)
    with pytest.raises(KeyError):
        table["nothing"]


def test_a_package_offers_names_of_its_modules() -> None:
    look_up = offered("rrgdb_tests", {"Path": "pathlib:Path"})
    assert look_up("Path") is Path
    with pytest.raises(AttributeError, match="module 'rrgdb_tests' has no attribute 'Other'"):
        look_up("Other")
