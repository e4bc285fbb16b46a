"""scripts/fuzz: it finds nothing in what is there, and it finds what is put there."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

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


def test_qcow2_for_a_moment(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/fuzz", "--seconds=4", "--seed=99", "--findings", tmp_path / "found", "qcow2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, (tmp_path / "found").exists()) == (0, False), done.stdout + done.stderr
    assert "0 findings" in done.stdout
