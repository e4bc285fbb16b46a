"""monitor commands and the commands of ``rrgdb gdbinit``."""

from __future__ import annotations

from pathlib import Path

from rrgdb_tests.e2e.harness import Gdb, rrgdb

FLUSH = ("maintenance flush register-cache", "maintenance flush dcache")


def _refresh(gdb: Gdb) -> None:
    for line in FLUSH:
        gdb.cli(line)


def test_seek_goes_anywhere_and_to_both_ends(replay: Gdb) -> None:
    replay.break_at("tick")
    replay.cont()
    here = (replay.icount, replay.registers())
    end = replay.when()[2]
    for where, icount in (("end", end), ("start", 0), (str(here[0]), here[0]), (hex(here[0] + 5), here[0] + 5)):
        assert f"icount {icount}" in replay.cli(f"monitor seek {where}")
        _refresh(replay)
        assert replay.icount == icount
    replay.cli(f"monitor seek {here[0]}")
    _refresh(replay)
    assert (replay.icount, replay.registers()) == here


def test_back_and_forward_by_a_count(replay: Gdb) -> None:
    replay.cli("monitor seek 5000")
    replay.cli("monitor back 1234")
    assert replay.icount == 3766
    replay.cli("monitor back")
    assert replay.icount == 3765
    replay.cli("monitor forward 35")
    assert replay.icount == 3800
    assert "beginning of history" in replay.cli("monitor back 1000000")
    assert replay.icount == 0
    assert "end of history" in replay.cli("monitor forward 100000000")
    assert replay.icount == replay.when()[2]


def test_named_snapshots(replay: Gdb) -> None:
    replay.break_at("tick", "tick_count == 6")
    replay.cont()
    here = (replay.icount, replay.registers())
    replay.cli("monitor savevm six")
    assert "six" in replay.cli("monitor info snapshots")
    replay.cli("monitor seek start")
    replay.cli("monitor loadvm six")
    _refresh(replay)
    assert (replay.icount, replay.registers()) == here
    replay.cli("monitor delvm six")
    assert "six" not in replay.cli("monitor info snapshots")
    assert "six" in replay.cli("monitor loadvm six")
    assert replay.icount == here[0]


def test_history_shows_the_executed_instructions(replay: Gdb) -> None:
    replay.cli("monitor seek 100")
    _refresh(replay)
    lines = replay.cli("monitor history 5").splitlines()
    assert [int(line.split()[0]) for line in lines] == [95, 96, 97, 98, 99]
    replay.stepi(reverse=True)
    assert int(lines[-1].split()[1], 16) == replay.pc


def test_replay_break_stops_at_an_icount_in_both_directions(replay: Gdb) -> None:
    replay.cli("monitor replay_break 4321")
    replay.cont()
    assert replay.icount == 4321
    replay.cli("monitor seek end")
    _refresh(replay)
    replay.cont(reverse=True)
    assert replay.icount == 4321
    replay.cli("monitor replay_delete_break")
    assert replay.cont()["reason"] == "no-history"


def test_info_replay_and_registers(replay: Gdb, recording: Path) -> None:
    text = replay.cli("monitor info replay")
    assert str(recording) in text
    assert "mode: replay" in text
    assert f"{replay.pc:x}" in replay.cli("monitor info registers")


def test_a_wrong_monitor_command_is_told_in_one_line(replay: Gdb) -> None:
    for line in ("monitor bananas", "monitor seek", "monitor seek nowhere", "monitor back x", "monitor loadvm nothing"):
        text = replay.cli(line)
        assert text.strip()
        assert text.count("\n") == 1, text
        assert "Traceback" not in text
    assert replay.icount == 0


def test_help_names_every_command(replay: Gdb) -> None:
    text = replay.cli("monitor help")
    for word in ("when", "seek", "back", "forward", "history", "savevm", "loadvm", "delvm", "info snapshots"):
        assert word in text


def test_the_commands_of_gdbinit(replay: Gdb, tmp_path: Path) -> None:
    script = tmp_path / "rrgdb.py"
    script.write_text(rrgdb("gdbinit").stdout)
    replay.cli(f"source {script}")
    replay.break_at("tick")
    replay.cont()
    here, pc = replay.icount, replay.pc
    assert f"icount {here}" in replay.cli("rrgdb-when")
    replay.cli("rrgdb-checkpoint here")
    replay.cli("rrgdb-seek start")
    assert replay.icount == 0
    assert replay.pc != pc
    assert "tick" in replay.cli("rrgdb-restart here")
    assert (replay.icount, replay.pc) == (here, pc)
    replay.cli("rrgdb-back 10")
    assert replay.icount == here - 10
    replay.cli("rrgdb-forward 10")
    assert (replay.icount, replay.pc) == (here, pc)
    assert len(replay.cli("rrgdb-history 3").splitlines()) == 3
    assert "here" in replay.cli("info rrgdb")
    replay.cli("rrgdb-delete-checkpoint here")
