"""The sessions that docs/guide.md and docs/ide.md show, typed again: what gdb prints is what the pages say."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from rrgdb_tests.e2e.harness import PATIENCE, Server, batch, gdb_path, rrgdb

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guide.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
COMPILE = next(
    line[2:] for _, text in BLOCKS for line in text.splitlines() if line.startswith("$ riscv64-unknown-elf-")
)
SHOWN_WITH = ("12.", "13.")
"""versions of the compiler and of gdb that the page was written with: addresses and wording are theirs"""
PROMPT = "(gdb) "


def _version(command: str) -> str:
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\) (\d+\.)\S*$", said.splitlines()[0])
    return found[1] if found else ""


def _session(text: str) -> tuple[list[str], list[str]]:
    """What is typed at gdb's prompt, and what is printed, in order."""
    lines = text.splitlines()
    typed = [line.removeprefix(PROMPT) for line in lines if line.startswith(PROMPT)]
    printed = [line for line in lines if line.strip() and not line.startswith((PROMPT, "$ "))]
    return [line for line in typed if not line.startswith("target remote")], printed


SESSIONS = {
    typed[0]: (typed, printed)
    for _, text in BLOCKS
    for typed, printed in [_session(text)]
    if typed and printed and "pump" in text + "".join(typed) and "^C" not in text and "pump.core" not in text
}


@pytest.fixture(scope="module")
def pump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide's program beside its recording and the file from ``rrgdb gdbinit``."""
    words = shlex.split(COMPILE)
    if (_version(words[0]), _version(gdb_path())) != SHOWN_WITH:
        pytest.skip(f"the guide shows gcc {SHOWN_WITH[0]}x and gdb {SHOWN_WITH[1]}x")
    directory = tmp_path_factory.mktemp("guide")
    (directory / "pump.c").write_text(next(text for kind, text in BLOCKS if kind == "c"))
    subprocess.run(words, cwd=directory, capture_output=True, check=True)
    done = rrgdb("record", "-o", directory / "pump.rrgdb", directory / "pump.elf", status=1)
    assert done.stdout.replace("\r", "") == "set point lost\n"
    assert "guest exited with status 1 after 3000721 instructions" in done.stderr
    (directory / "rrgdb.py").write_text(rrgdb("gdbinit").stdout)
    return directory / "pump.elf"


def test_the_guide_shows_sessions() -> None:
    assert len(SESSIONS) >= 3


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_of_the_guide(name: str, pump: Path) -> None:
    typed, printed = SESSIONS[name]
    with Server("replay", "--gdb", "127.0.0.1:0", pump.with_suffix(".rrgdb")) as server:
        said = batch(pump, server.address, [f"source {pump.with_name('rrgdb.py')}", *typed])
    lines = iter(line.rstrip() for line in said.splitlines())
    for expected in printed:
        assert expected.rstrip() in lines, f"{expected!r} is not in what gdb said next:\n{said}"


def test_the_snapshot_commands(pump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = next(text for _, text in BLOCKS if text.startswith("$ rrgdb snapshot"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(pump, "pump.elf")
    rrgdb("record", "-o", "pump.rrgdb", "pump.elf", status=1)
    said = ""
    for line in shown.splitlines():
        if line.startswith("$ rrgdb "):
            said += f"{line}\n{rrgdb(*shlex.split(line)[2:]).stdout}"
    assert said == shown
    core = next(text for _, text in BLOCKS if text.startswith("$ gdb-multiarch -q pump.elf pump.core"))
    command, *printed = core.splitlines()
    done = subprocess.run(
        [gdb_path(), "--nx", "--batch", *shlex.split(command)[3:], "-ex", "print n"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [line for line in printed if not line.startswith(PROMPT)]


def test_the_guides_python(pump: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    at = next(i for i, (kind, _) in enumerate(BLOCKS) if kind == "python")
    monkeypatch.chdir(pump.parent)
    exec(compile(BLOCKS[at][1], "guide.md", "exec"), {})
    assert capsys.readouterr().out == BLOCKS[at + 1][1]


def test_the_mi_session(pump: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "ide.md").read_text()
    shown = next(b for b in re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) if b.startswith("1-"))
    with (
        Server("replay", "--gdb", "127.0.0.1:0", pump.with_suffix(".rrgdb")) as server,
        subprocess.Popen(
            [gdb_path(), "--nx", "--quiet", "--interpreter=mi3"],
            cwd=pump.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as gdb,
    ):
        late = threading.Timer(PATIENCE, gdb.kill)
        late.start()
        assert gdb.stdin is not None
        assert gdb.stdout is not None
        seen: list[str] = []
        for line in shown.splitlines():
            if re.match(r"\d+-", line):
                gdb.stdin.write(line.replace("127.0.0.1:1234", server.address) + "\n")
                gdb.stdin.flush()
                continue
            expected = re.compile(re.escape(line).replace("…", ".*"))
            for said in gdb.stdout:
                seen.append(said)
                if expected.fullmatch(said.rstrip()):
                    break
            else:
                raise AssertionError(f"{line!r} is not in what gdb said:\n{''.join(seen)}")
        late.cancel()
        gdb.kill()
