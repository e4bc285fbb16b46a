"""System registers in gdb: by the manuals' names, each as `monitor info registers` has it; no warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from rrgdb.arch import ARCHES
from rrgdb.arch.base import words
from rrgdb_tests.e2e.harness import Gdb, GdbError, Server, batch, debugging
from rrgdb_tests.guests import arch_name
from rrgdb_tests.timeline.oracle import symbol

NAMES = {
    "riscv64": words("mcause mepc mtval mstatus scause sepc stval sstatus satp pmpcfg0 mcycle"),
    "riscv32": words("mcause mepc mtval mstatus scause sepc stval sstatus satp pmpcfg1 mcycle"),
    "aarch64": ("ESR_EL1", "FAR_EL1", "ELR_EL1", "SPSR_EL1", "SCTLR_EL1", "TTBR0_EL1", "TCR_EL1", "VBAR_EL1"),
    "arm": ("DFSR", "DFAR", "IFSR", "IFAR", "SPSR", "SCTLR", "TTBR0", "DACR", "VBAR", "LR_irq", "SP_usr"),
    "thumb": ("DFSR", "DFAR", "IFSR", "IFAR", "SPSR", "SCTLR", "TTBR0", "DACR", "VBAR", "LR_irq", "SP_usr"),
    "i386": ("cr0", "cr2", "cr3", "cr4", "efer", "gdtr_base", "idtr_base", "dr7"),
    "x86_64": ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "k_gs_base", "gdtr_base", "idtr_base", "dr7"),
}


def test_gdb_takes_the_description_without_a_warning(ticker: Path, recording: Path) -> None:
    with Server("replay", "--gdb", "127.0.0.1:0", recording) as server:
        said = batch(ticker, server.address, ["info registers system", "stepi", "reverse-stepi", "info all-registers"])
    assert "warning" not in said.lower()
    assert "could not" not in said.lower()


def test_each_has_its_value_in_gdb_and_in_the_monitor(arch: str, replay: Gdb) -> None:
    told = dict(line.split() for line in replay.cli("monitor info registers").splitlines())
    shown = ARCHES[arch_name(arch)].shown_registers
    for name in {*NAMES[arch], *(r.name for r in shown)}:
        assert replay.value(f"${name}") == int(told[name], 0), name
    name = NAMES[arch][0]
    assert replay.cli(f"monitor info registers {name.lower()}").split() == [name, told[name]]


def test_a_step_reads_none_of_them(replay: Gdb) -> None:
    replay.stepi()
    replay.cli("set debug remote 1")
    replay.stepi()
    replay.stepi(reverse=True)
    replay.cli("set debug remote 0")
    assert not [line for line in replay.transcript.splitlines() if "Sending packet: $p" in line]


WRITTEN = {
    "riscv64": "mscratch",
    "riscv32": "sscratch",
    "aarch64": "TPIDR_EL1",
    "arm": "TPIDRPRW",
    "thumb": "TPIDRPRW",
    "i386": "cr2",
    "x86_64": "cr2",
}


def test_one_that_is_written_stays_written_and_going_back_undoes_it(arch: str, ticker: Path, tmp_path: Path) -> None:
    path, name = tmp_path / "r", WRITTEN[arch]
    with debugging(ticker, "run", "-o", path, ticker) as gdb:
        for _ in range(3):
            gdb.stepi()
        gdb.cli(f"set ${name} = 0x1230")
        gdb.stepi()
        assert gdb.value(f"${name}") == 0x1230
        at = gdb.icount
        gdb.stepi(reverse=True)
        gdb.stepi(reverse=True)
        assert gdb.value(f"${name}") == 0
    with debugging(ticker, "replay", path) as gdb:
        gdb.cli(f"monitor seek {at}")
        gdb.cli("maintenance flush register-cache")
        assert gdb.value(f"${name}") == 0x1230


@pytest.mark.parametrize("arch", ["aarch64", "arm", "riscv64"])
def test_one_that_cannot_be_written_says_so(arch: str, replay: Gdb) -> None:
    name = {"aarch64": "MIDR_EL1", "arm": "MIDR", "riscv64": "instret"}[arch]
    before = replay.value(f"${name}")
    with pytest.raises(GdbError, match=r"could not|Could not|cannot be written"):
        replay.cli(f"set ${name} = 5")
    replay.cli("maintenance flush register-cache")
    assert replay.value(f"${name}") == before


def test_memory_at_physical_addresses(ticker: Path, replay: Gdb) -> None:
    at = symbol(ticker, "tick_count")
    assert replay.cli("maintenance packet qqemu.PhyMemMode").endswith('received: "0"\n')
    assert 'received: "OK"' in replay.cli("maintenance packet Qqemu.PhyMemMode:1")
    assert replay.value(f"*(int *){at}") == 0
    replay.cli("maintenance packet Qqemu.PhyMemMode:0")
    assert replay.cli(f"monitor xp /1dw {at}") == f"{at:016x}:          0\n"
