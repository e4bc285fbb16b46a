"""``rrgdb snapshot``: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from rrgdb.board.boards import BOARDS
from rrgdb.cli.main import main
from rrgdb.opening import OptionError, record, replay
from rrgdb.timeline import export as exporting
from rrgdb.timeline.forward import Forward
from rrgdb.timeline.stop import Points
from rrgdb.timeline.timeline import Timeline
from rrgdb.timeline.verify import verify
from rrgdb_tests import guests
from rrgdb_tests.timeline.oracle import MEMORY, OPTIONS, symbol

Run = Callable[..., str]


def _image() -> Path:
    return guests.build("riscv64", "ticker", {"TICKS": 10, "WORK": 200})


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("snapshot") / "r"
    with record(path, _image(), OPTIONS) as opened:
        opened.timeline.run(Points({}))
    return path


@pytest.fixture
def ours(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "r"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run(*arguments, status=0)`` is ``rrgdb snapshot ARGUMENTS``: what it prints, of a failure the ``lines`` on
    stderr."""

    def run(*arguments: object, status: int = 0, lines: int = 1) -> str:
        monkeypatch.setattr(sys, "argv", ["rrgdb", "snapshot", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == status, said
        assert status == 0 or said.out == ""
        assert status != 1 or said.err.count("\n") == lines
        return said.err if status else said.out

    return run


def _end(path: Path) -> int:
    with replay(path, writable=False) as opened:
        return opened.timeline.end


# -- list, create, delete ------------------------------------------------------------------------


def test_create_list_and_delete(ours: Path, run: Run) -> None:
    assert run("create", ours, "mine", "--at", "15000") == "snapshot mine at icount 15000\n"
    run("create", ours, "last")
    listed = json.loads(run("list", "--json", ours))
    assert [(row["name"], row["icount"], row["kind"]) for row in listed] == [
        ("start", 0, "starting"),
        ("mine", 15000, "named"),
        ("last", _end(ours), "named"),
    ]
    assert 0 < listed[1]["changed_bytes"] < 100_000
    head, *table = run("list", ours).splitlines()
    assert head.split() == ["icount", "bytes", "name"]
    assert [line.split()[:3] for line in table] == [
        [str(row["icount"]), str(row["changed_bytes"]), row["name"]] for row in listed
    ]
    assert table[0].endswith("start (starting)")
    assert run("delete", ours, "mine", "last", "mine") == "2 snapshots deleted\n"
    assert [row["name"] for row in json.loads(run("list", "--json", ours))] == ["start"]
    with replay(ours) as opened:
        assert opened.messages == ()
        verify(opened.timeline)


def test_automatic_snapshots_are_told_from_others(tmp_path: Path, run: Run) -> None:
    with record(tmp_path / "r", _image(), OPTIONS, interval=1e-9) as opened:
        opened.timeline.run(Points({}), steps=1000)
    listed = json.loads(run("list", "--json", tmp_path / "r"))
    assert [row["kind"] for row in listed[:2]] == ["starting", "automatic"]
    assert f"auto-{listed[1]['icount']} (automatic)\n" in run("list", tmp_path / "r")


def test_the_starting_snapshot_has_the_name_that_the_user_gives(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "r"
    with record(path, _image(), OPTIONS, starting="init") as opened:
        opened.timeline.run(Points({}), steps=1000)
        assert opened.timeline.marks.starting == opened.timeline.marks.stored[0]
    run("create", path, "mine", "--at", 0)
    assert [(row["name"], row["icount"], row["kind"]) for row in json.loads(run("list", "--json", path))] == [
        ("init", 0, "starting"),
        ("mine", 0, "named"),
    ]
    assert "snapshot init stays: every replay needs it" in run("delete", path, "init", status=1)
    assert run("delete", path, "mine") == "1 snapshot deleted\n"
    with replay(path) as opened:
        verify(opened.timeline)


@pytest.mark.parametrize("name", ["auto-0", "end", "7", "a b", "", "x" * 65, "\U0001f600" * 64])
def test_a_starting_snapshot_that_cannot_be_called_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match=r"^--rrsnapshot: "):
        record(tmp_path / "r", _image(), OPTIONS, starting=name)
    assert not (tmp_path / "r").exists()


def test_room_of_deleted_snapshots_is_used_again(ours: Path, run: Run) -> None:
    store = ours / "snapshots.qcow2"
    sizes = []
    for begin in (500, 700, 900):
        for n in range(10):
            run("create", ours, f"s{n}", "--at", 1000 * n + begin)
        sizes.append(store.stat().st_size)
        run("delete", ours, *(f"s{n}" for n in range(10)))
    assert max(sizes) - sizes[0] < 5 * 4096


def test_what_cannot_be_done_is_told_in_a_line(ours: Path, run: Run, tmp_path: Path) -> None:
    run("create", ours, "mine", "--at", "15000")
    before = run("list", ours)
    assert run("delete", ours, "mine", "other", status=1) == f"rrgdb: {ours}: there is no snapshot other\n"
    assert "snapshot start stays: every replay needs it" in run("delete", ours, "mine", "start", status=1)
    assert "there is a snapshot mine already" in run("create", ours, "mine", status=1)
    assert "is outside history (0 to " in run("create", ours, "far", "--at", 1 << 40, status=1)
    for name in ("auto-7", "start", "end", "0x10", "a b", "x" * 65, "", "a\n"):
        assert "NAME" in run("create", ours, name, status=2)
    file = tmp_path / "core"
    assert "there is no snapshot other" in run("export", ours, "other", file, status=1)
    assert "is outside history" in run("export", ours, file, "--at", 1 << 40, status=1)
    assert "expected a snapshot's NAME and FILE" in run("export", ours, file, status=2)
    assert "expected a snapshot's NAME and FILE" in run("export", ours, "mine", file, "--at", 5, status=2)
    assert "cannot write: No such file" in run("export", ours, "mine", tmp_path / "no" / "core", status=1)
    assert "expected a file, or none" in run("export", ours, "mine", tmp_path, status=1)
    assert not file.exists()
    for verb, *rest in (["list"], ["create", "a"], ["delete", "a"], ["export", "a", file]):
        assert "expected a recording" in run(verb, tmp_path, *rest, status=1)
    assert run("list", ours) == before


def test_a_recording_without_its_store(ours: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is replayed for a snapshot that cannot be taken; a state can be exported all the same."""
    (ours / "snapshots.qcow2").unlink()
    assert run("list", ours).splitlines() == ["          icount        bytes  name"]
    run("export", ours, tmp_path / "core", "--at", 15000)
    monkeypatch.setattr(Timeline, "seek", None)
    said = run("create", ours, "mine", status=1, lines=2)
    assert "replay begins with the images" in said
    assert said.endswith(f"rrgdb: {ours}: its snapshots cannot be used here: none is taken\n")


def test_a_way_that_is_interrupted_takes_no_snapshot(ours: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed = Forward._replay

    def interrupted(self: Forward, limit: int) -> object:
        monkeypatch.setattr(Forward, "_replay", replayed)
        os.kill(os.getpid(), signal.SIGINT)
        return replayed(self, limit)

    monkeypatch.setattr(Forward, "_replay", interrupted)
    assert f"interrupted at icount 0, on the way to {_end(ours)}" in run("create", ours, "mine", status=1)
    assert [row["name"] for row in json.loads(run("list", "--json", ours))] == ["start"]


# -- export --------------------------------------------------------------------------------------


def test_a_core_is_as_sparse_as_the_guest_and_readable_by_nobody_else(ours: Path, run: Run, tmp_path: Path) -> None:
    core = tmp_path / "core"
    assert run("export", ours, core, "--at", "20000") == f"{core}: the state at icount 20000\n"
    roms = [(rom.base, rom.size) for rom in BOARDS["riscv64-virt"].roms]
    assert core.stat().st_size == MEMORY + sum(size for _, size in roms) + 4096
    assert core.stat().st_blocks * 512 < 100_000
    assert core.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob("core*")) == [core]
    with core.open("rb") as file:
        elf = ELFFile(file)
        assert elf["e_type"] == "ET_CORE"
        loads = [s.header for s in elf.iter_segments("PT_LOAD")]
        assert [(load.p_vaddr, load.p_filesz) for load in loads] == sorted([(0x80000000, MEMORY), *roms])
        assert all((load.p_vaddr, load.p_filesz) == (load.p_paddr, load.p_memsz) for load in loads)
        (notes,) = elf.iter_segments("PT_NOTE")
        assert [n["n_name"] for n in notes.iter_notes()] == ["CORE", "CORE"]


def test_ram_with_a_hole(run: Run, tmp_path: Path) -> None:
    """The core has two segments, and raw has all pages one after the other, as the snapshots have."""
    path, core, raw = tmp_path / "r", tmp_path / "core", tmp_path / "raw"
    with record(path, guests.build("i386", "ticker", {"TICKS": 10, "WORK": 200}), OPTIONS) as opened:
        opened.timeline.run(Points({}))
        regions = [(r.base, r.offset, r.size) for r in opened.ram.regions]
        wanted = bytes(opened.ram.view())
    assert len(regions) == 2
    run("export", path, core, "--at", _end(path))
    run("export", path, raw, "--format", "raw", "--at", _end(path))
    assert raw.read_bytes() == wanted
    with core.open("rb") as file:
        loads = list(ELFFile(file).iter_segments("PT_LOAD"))
        assert [s.header.p_paddr for s in loads] == [base for base, _, _ in regions]
        assert [s.data() for s in loads] == [wanted[offset : offset + size] for _, offset, size in regions]


def test_raw_is_ram_and_replaces_what_was_there(ours: Path, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "ram"
    file.write_bytes(b"old")
    run("create", ours, "mine", "--at", "15000")
    run("export", "--format", "raw", ours, "mine", file)
    with replay(ours) as opened:
        opened.timeline.seek(15000)
        assert file.read_bytes() == bytes(opened.ram.view())
        count = opened.ram.read(symbol(_image(), "tick_count"), 4)
    assert int.from_bytes(count, "little") > 0
    assert file.stat().st_blocks * 512 < 100_000


def test_an_export_that_is_interrupted_leaves_what_was_there(
    ours: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "core"
    file.write_bytes(b"old")
    head = exporting._core_head

    def interrupted(*arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return head(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(exporting, "_core_head", interrupted)
    assert "interrupted: nothing was written" in run("export", ours, "start", file, status=1)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.glob("core*")) == [file]


def test_a_full_disk_leaves_what_was_there(
    ours: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "core"
    file.write_bytes(b"old")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert f"{file}: cannot write: No space left on device" in run("export", ours, "start", file, status=1)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.glob("core*")) == [file]
