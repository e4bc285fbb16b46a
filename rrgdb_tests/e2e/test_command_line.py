"""The verbs of ``rrgdb`` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rrgdb import demo
from rrgdb_tests import guests
from rrgdb_tests.e2e.harness import Server, batch, debugging, rrgdb

PROGRAMS = [(arch, name) for arch in guests.ARCHES for name in guests.AWKWARD[arch]]


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n")


@pytest.mark.parametrize(("arch", "name"), PROGRAMS, ids=[f"{arch}-{name}" for arch, name in PROGRAMS])
def test_awkward_instructions_come_to_qemus_results(arch: str, name: str, tmp_path: Path) -> None:
    done = rrgdb("record", "-o", tmp_path / "r", guests.build(arch, name), status=guests.exit_status(arch, 0))
    assert f"{name} checksum {guests.CHECKSUMS[arch, name]:08x}\n" in _plain(done.stdout)


@pytest.mark.parametrize(("arch", "name"), PROGRAMS, ids=[f"{arch}-{name}" for arch, name in PROGRAMS])
def test_awkward_instructions_replay_to_the_same_end_from_anywhere(arch: str, name: str, tmp_path: Path) -> None:
    image = guests.build(arch, name, {"LOOPS": 20})
    rrgdb("record", "-o", tmp_path / "r", image, status=guests.exit_status(arch, 0))
    with debugging(image, "replay", tmp_path / "r") as gdb:
        gdb.cont()
        end = (gdb.icount, gdb.registers())
        for part in (7, 5, 3, 2):
            gdb.cli(f"monitor seek {end[0] * (part - 1) // part}")
            gdb.cli("maintenance flush register-cache")
            for _ in range(5):
                gdb.stepi()
            for _ in range(3):
                gdb.stepi(reverse=True)
            gdb.cont()
            assert (gdb.icount, gdb.registers()) == end


def test_record_replay_info_and_verify(arch: str, ticker: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.rrgdb"
    done = rrgdb("record", "-o", path, ticker, status=guests.exit_status(arch, 0))
    assert "ticker checksum " in done.stdout
    info = json.loads(rrgdb("info", "--json", path).stdout)
    assert guests.arch_name(arch) in json.dumps(info)
    assert str(ticker.name) in rrgdb("info", path).stdout
    rrgdb("verify", path)


def test_a_replay_prints_the_guests_output_again(ticker: Path, recording: Path) -> None:
    with Server("replay", "--once", "--gdb", "127.0.0.1:0", recording) as server, server.connect() as link:
        link.sendall(b"$c#63")
        server.wait_for("ticker checksum [0-9a-f]{8}")


def test_the_guests_status_is_ours(arch: str, tmp_path: Path) -> None:
    rrgdb("record", "-o", tmp_path / "r", guests.build(arch, "status"), status=guests.exit_status(arch, 3))


def test_serial_input_is_recorded_and_replayed(arch: str, tmp_path: Path, start: Callable[..., Server]) -> None:
    image = guests.build(arch, "echo")
    path = tmp_path / "echo.rrgdb"
    server = start("record", "-o", path, "--serial", "stdio", image, stdin=True)
    server.wait_for("echo: ready")
    server.send(b"hello")
    server.wait_for("HELLO")
    server.send(b"worldq")
    assert server.wait_exit() == guests.exit_status(arch, 0)
    assert "WORLDQ" in server.console
    with debugging(image, "replay", path) as gdb:
        gdb.break_at("take")
        letters = []
        while gdb.cont()["reason"] == "breakpoint-hit":
            letters.append(chr(gdb.value("c")))
        assert "".join(letters) == "helloworldq"
        back = []
        while gdb.cont(reverse=True)["reason"] == "breakpoint-hit":
            back.append(chr(gdb.value("c")))
        assert "".join(back) == "qdlrowolleh"
    rrgdb("verify", path)


def test_a_limit_on_instructions_ends_a_recording(arch: str, tmp_path: Path) -> None:
    image = guests.build(arch, "ticker", {"TICKS": 1_000_000})
    rrgdb("record", "--max-icount", 1_000_000, "-o", tmp_path / "r", image, status=None)
    with debugging(image, "replay", tmp_path / "r") as gdb:
        assert gdb.cont()["reason"] == "no-history"
        assert gdb.icount == 1_000_000


def test_machines_names_a_board_for_every_family() -> None:
    machines = rrgdb("machines").stdout
    described = json.dumps(json.loads(rrgdb("machines", "--json").stdout))
    for arch in map(guests.arch_name, guests.ARCHES):
        assert arch in machines
        assert arch in described


def test_help_for_every_verb() -> None:
    for verb in ("run", "record", "replay", "info", "verify", "machines", "demo", "gdbinit"):
        assert "Usage" in rrgdb(verb, "--help").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "/no/such/file.elf"],
        ["replay", "/no/such/recording"],
        ["record", "-M", "no-such-board", "IMAGE"],
        ["record", "-m", "lots", "IMAGE"],
        ["info", "/etc"],
        ["verify", "/dev/null"],
        ["run", "--gdb", "nonsense", "IMAGE"],
        ["run", "--serial", "nonsense", "IMAGE"],
        ["no-such-verb"],
    ],
    ids=" ".join,
)
def test_a_mistake_is_told_in_a_line_and_not_a_traceback(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = str(guests.build("riscv64", "status"))
    done = rrgdb(*[image if word == "IMAGE" else word for word in arguments], status=None)
    assert done.returncode not in {0, 3}
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


def test_the_demo_finds_its_culprit() -> None:
    done = rrgdb("demo")
    last = done.stdout.strip().splitlines()[-1]
    source = (demo.HERE / "race.c").read_text().splitlines()
    (line,) = (number for number, text in enumerate(source, 1) if text.strip() == "r->best[place] = time;")
    assert "culprit" in last
    assert f"race.c:{line}" in last


def test_the_demo_serves_its_recording(start: Callable[..., Server]) -> None:
    server = start("demo", "--serve")
    match = server.wait_for(r"target remote ([0-9.]+:\d+)")
    assert "SIG" in batch(demo.IMAGE, match[1], ["continue"])
