"""The machine, the versions, and the figures as Markdown tables and JSON."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import unicorn

import rrgdb
from benchlib.figures import QEMU, RRGDB, Figure

TOOLS = {"gdb": "gdb-multiarch", "QEMU": "qemu-system-riscv64"}


def describe() -> dict[str, Any]:
    """Where and with what the figures are made."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    facts: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu.partition(":")[2].strip() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_mib": memory,
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "rrgdb": rrgdb.__version__,
        "Unicorn": unicorn.__version__,
    }
    for name, program in TOOLS.items():
        if shutil.which(program):
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
            facts[name] = said.splitlines()[0] if said else "?"
    return facts


def markdown(figures: Sequence[Figure]) -> str:
    """A table for each group: a row for each figure, a column for each guest, and one more for its peer."""
    lines: list[str] = []
    for group in dict.fromkeys(f.group for f in figures):
        cells = {(f.what, f.guest, f.who): f.text() for f in figures if f.group == group}
        columns = sorted(dict.fromkeys((guest, who) for _, guest, who in cells), key=lambda c: (c[0], c[1] == QEMU))
        heads = [guest if who == RRGDB else f"{guest}, {who}" for guest, who in columns]
        lines += [f"### {group}", "", "| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(columns)]
        for what in dict.fromkeys(what for what, _, _ in cells):
            row = [what.replace("|", "\\|"), *(cells.get((what, *column), "") for column in columns)]
            lines.append("| " + " | ".join(row) + " |")
        lines.append("")
    return "\n".join(lines)
