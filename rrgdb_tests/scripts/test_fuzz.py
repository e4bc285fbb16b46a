"""scripts/fuzz: it finds nothing in what is there, and it finds what is put there."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rrgdb.board.boards import BOARDS
from rrgdb.errors import Error
from rrgdb.rsp.packets import encode
from rrgdb.target import Target

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from fuzzlib import runner  # noqa: PLC0415 - not a package that is installed

    return runner


class Faulty:
    """Every fifth case fails, each in another way."""

    def __init__(self, work: Path) -> None:
        self.work = work

    def damage(self, rng: random.Random) -> dict[str, bytes]:
        return {"number": str(rng.randrange(1000)).encode()}

    def exercise(self, directory: Path, rng: random.Random) -> None:
        case = int((self.work / "count").read_text() or 0)
        (self.work / "count").write_text(str(case + 1))
        if case == 1:
            raise KeyError("lost")
        if case == 2:
            bytearray(1 << 40)
        if case == 3:
            while True:
                pass
        if case == 4:
            signal.pause()


def test_what_a_case_does_is_found(tmp_path: Path, runner: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "count").write_text("0")
    limits = runner.Limits(0.2, 256 << 20)
    result = runner.Runner(Faulty(tmp_path), tmp_path, limits, 7, tmp_path / "found").run(6, 0)
    said = {path.name: (path / "what.txt").read_text() for path in (tmp_path / "found").iterdir()}
    assert result.findings == 4
    assert set(said) == {"7-1", "7-2", "7-3", "7-4"}
    for name, words in zip(sorted(said), ("KeyError", "MemoryError", "CPU time", "no progress"), strict=True):
        assert words in said[name]
        assert (tmp_path / "found" / name / "number").exists()
    assert result.cases > 5
    assert "7-4" in capfd.readouterr().err


@pytest.fixture(scope="module")
def packets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(ROOT / "scripts"))
        from fuzzlib.packets import Packets  # noqa: PLC0415 - not a package that is installed

        yield Packets(tmp_path_factory.mktemp("packets"))


@pytest.mark.parametrize("how", ["live", "socket", "replay"])
def test_packets_of_any_kind_do_no_harm(packets: Any, tmp_path: Path, how: str) -> None:
    """A sample that is always the same."""
    for case in range(40 if how == "replay" else 4):
        files = packets.damage(random.Random(f"sample:{case}"))
        family = files["guest"].split()[0].decode()
        directory = tmp_path / str(case) / "case"
        directory.mkdir(parents=True)
        (directory / "guest").write_text(f"{family} {how}")
        (directory / "stream").write_bytes(files["stream"])
        packets.exercise(directory, random.Random(case))


def test_packets_that_break_something_are_found(packets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults put into the stub, each of another kind."""

    def moves(target: Target, thread: int, address: int, length: int) -> bytes:
        target.timeline.seek(min(target.timeline.icount + 1, target.timeline.end))
        return b"x"

    def writes(target: Target, thread: int, address: int, data: bytes) -> None:
        target.engine.write_memory(address, data)

    def fails(*_: object) -> bytes:
        raise KeyError("lost")

    directory = tmp_path / "case"
    directory.mkdir()
    (directory / "guest").write_text("i386 replay")
    for name, fault, stream, error, words in (
        ("read_memory", moves, encode(b"m100000,4"), AssertionError, "moves the guest"),
        ("read_registers", fails, encode(b"g"), KeyError, "lost"),
        ("detached", lambda *_, **__: None, encode(b"Z0,100000,1"), AssertionError, "points are left"),
        ("write_memory", writes, encode(b"M101800,1:55"), AssertionError, "state"),
    ):
        (directory / "stream").write_bytes(stream * 30)
        with monkeypatch.context() as patch:
            patch.setattr(Target, name, fault)
            with pytest.raises(error, match=words):
                packets.exercise(directory, random.Random(1))
    packets.exercise(directory, random.Random(1))


@pytest.mark.parametrize("target", ["packets", "qcow2", "recordings"])
def test_for_a_moment(tmp_path: Path, target: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/fuzz", "--seconds=2", "--seed=99", "--findings", tmp_path / "found", target],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, (tmp_path / "found").exists()) == (0, False), done.stdout + done.stderr
    assert "0 findings" in done.stdout


@pytest.fixture
def elf(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from fuzzlib import elf  # noqa: PLC0415 - not a package that is installed

    return elf


def test_elf_files_load_or_are_refused(elf: ModuleType, tmp_path: Path) -> None:
    target = elf.Elf(tmp_path)
    for case in range(400):
        rng = random.Random(f"5:{case}")
        elf.load(target.damage(rng)[elf.NAME], rng)


def test_elf_finds_what_is_no_error_of_ours(elf: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(elf, "load_image", fail)
    with pytest.raises(KeyError):
        elf.load(b"\x7fELF", random.Random(1))
    monkeypatch.setattr(elf, "load_image", lambda *_: (_ for _ in ()).throw(Error("two\nlines")))
    with pytest.raises(AssertionError, match="not one line"):
        elf.load(b"\x7fELF", random.Random(1))


def test_elf_through_the_whole_command(elf: ModuleType, tmp_path: Path) -> None:
    target = elf.Elf(tmp_path)
    (tmp_path / elf.NAME).write_bytes(elf._plain(BOARDS["riscv64-virt"]))
    target._recorder.record(tmp_path)
    assert (tmp_path / "recording/manifest.json").exists()
