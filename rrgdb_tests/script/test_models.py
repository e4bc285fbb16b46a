"""A script may name any CPU model that Unicorn has: its recording opens again, and says the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from unicorn import arm_const

import rrgdb
from rrgdb.engine.unicorn.families import FAMILIES
from rrgdb.engine.unicorn.families.base import find_layout
from rrgdb.engine.unicorn.probes.layout import Context
from rrgdb.recording.manifest import ManifestError
from rrgdb_tests.e2e.harness import PATIENCE, Gdb, Server
from rrgdb_tests.e2e.harness import rrgdb as rrgdb_command
from rrgdb_tests.script import programs
from rrgdb_tests.script.rig import CODE, DATA, PAGE, all_models, assemble, check, new_uc, plain_and_recorded, register


def named(arch: str, model: int) -> Any:
    uc = new_uc(arch)
    uc.ctl_set_cpu_model(model)
    return uc


@pytest.mark.parametrize("arch", tuple(programs.LOOP))
def test_every_model(arch: str, tmp_path: Path) -> None:
    """In a process of its own, which a model that does not work may kill."""
    command = [sys.executable, "-m", "rrgdb_tests.script.models", arch, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [name for name, _ in all_models(arch)]
    assert len(done.stdout.split()) >= 4


def test_bit_0_of_the_first_address_chooses_thumb(tmp_path: Path) -> None:
    thumb, plain = bytes.fromhex("0130 0130 00bf"), bytes.fromhex("020080e2 0000a0e1")

    def script(uc: Any) -> int:
        uc.mem_map(CODE, PAGE)
        uc.mem_write(CODE, thumb)
        uc.mem_write(CODE + 0x100, plain)
        for _ in range(2):
            uc.emu_start(CODE | 1, CODE + len(thumb))
            uc.emu_start(CODE + 0x100, CODE + 0x100 + len(plain))
        return int(uc.reg_read(arm_const.UC_ARM_REG_R0))

    expected, got, path = plain_and_recorded(tmp_path, script, "arm")
    assert got == expected == 8
    check(path)


@pytest.mark.e2e
def test_the_commands_open_it(tmp_path: Path) -> None:
    path = tmp_path / "r"
    uc = named("arm", arm_const.UC_CPU_ARM_CORTEX_A9)
    code = assemble("arm", "mov r0,#1; add r0,r0,#1; add r0,r0,#1; nop")
    with rrgdb.attach(uc, path):
        uc.mem_map(CODE, PAGE)
        uc.mem_write(CODE, code)
        uc.emu_start(CODE, CODE + len(code))
    assert "arm" in rrgdb_command("info", path).stdout
    rrgdb_command("verify", path)
    with Server("replay", "--gdb", "127.0.0.1:0", path) as server, Gdb(None) as gdb:
        gdb.connect(server.address)
        gdb.cont()
        gdb.stepi(reverse=True)
        gdb.stepi(reverse=True)
        assert (gdb.pc, gdb.value("$r0")) == (CODE + 8, 2)


def test_regions_of_a_memory_protection_unit_go_back_in_time(tmp_path: Path) -> None:
    """Unicorn keeps them outside of the CPU's structure, and the addresses where they are within."""
    write, read = "mcr p15,0,r0,c6,c2,0; mcr p15,0,r1,c6,c1,0", "mcr p15,0,r0,c6,c2,0; mrc p15,0,r2,c6,c1,0"
    code = assemble("arm", f"mov r0,#5; mov r1,#0x1000; {write}; mov r1,#0x2000; {write}; {read}; str r2,[r3]; nop")
    uc = named("arm", arm_const.UC_CPU_ARM_CORTEX_R5)
    with rrgdb.attach(uc, tmp_path / "r") as session:
        uc.mem_map(CODE, PAGE)
        uc.mem_map(DATA, PAGE)
        uc.mem_write(CODE, code)
        uc.reg_write(register("arm", "r3"), DATA)
        uc.emu_start(CODE, CODE + len(code))
        end, history = session.icount, session.history
        assert history.memory(DATA, 4) == (0x2000).to_bytes(4, "little")
        history.seek(end - 1)
        history.seek(4)
        for icount in range(4, end + 1):
            history.seek(icount)
        assert history.memory(DATA, 4) == (0x2000).to_bytes(4, "little")
    check(tmp_path / "r")


@pytest.mark.parametrize("model", [arm_const.UC_CPU_ARM_CORTEX_A9, arm_const.UC_CPU_ARM_CORTEX_R5])
def test_a_state_brings_no_addresses_and_no_lengths(model: int) -> None:
    """What was saved in another process, or is damaged, decides neither where Unicorn writes nor how much."""
    uc, layout = named("arm", model), find_layout(FAMILIES["arm"])
    assert layout.lists is not None
    assert len(layout.objects) > 10
    context = Context(uc, layout)
    state = context.save()
    assert all(state[at : at + 8] == bytes(8) for at in layout.objects)
    hostile = bytearray(state)
    for at in layout.objects:
        hostile[at : at + 8] = b"\x41" * 8
    context.restore(bytes(hostile))
    assert context.save() == state
    for count in (b"\xff\xff\xff\x7f", b"\1\0\0\0"):
        hostile = bytearray(state)
        hostile[layout.lists : layout.lists + 4] = count
        with pytest.raises(ValueError, match="number of memory regions"):
            context.restore(bytes(hostile))


def test_a_model_that_unicorn_does_not_have_is_told(tmp_path: Path) -> None:
    with rrgdb.attach(new_uc("arm"), tmp_path / "r"):
        pass
    manifest = tmp_path / "r" / "manifest.json"
    text = manifest.read_text()
    with rrgdb.open(tmp_path / "r") as recording:
        cpu = recording.manifest.guest.cpu
    for model in (999, (1 << 32) + 16):
        manifest.write_text(text.replace(f'"cpu": "{cpu}"', f'"cpu": "{model}"'))
        with pytest.raises(ManifestError, match=r"guest\.cpu: expected Unicorn's number of a model"):
            rrgdb.open(tmp_path / "r")
