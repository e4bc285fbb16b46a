"""Every CPU model of one family, run as a program of its own: what a model does to the process is seen by the parent.

``python -m rrgdb_tests.script.models FAMILY DIRECTORY`` prints a line for each model that can be recorded and opened.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import rrgdb
from rrgdb_tests.script.rig import CODE, DATA, PAGE, all_models, new_uc, register

# Counts to three in a register and in memory; M-profile CPUs have Thumb code alone.
PROGRAMS = {
    "x86_64": ("ffc0 890425 00002000".replace(" ", "") * 3, 9, "rax"),
    "i386": ("40 a3 00002000".replace(" ", "") * 3, 6, "eax"),
    "arm": ("010080e2 000081e5" * 3, 8, "r0"),
    "thumb": ("0130 0860" * 3, 4, "r0"),
    "aarch64": ("00040091 200000b9" * 3, 8, "x0"),
    "riscv32": ("13051500 23a0a500" * 3, 8, "a0"),
    "riscv64": ("13051500 23a0a500" * 3, 8, "a0"),
}
POINTERS = {"arm": "r1", "aarch64": "x1", "riscv32": "a1", "riscv64": "a1"}


def main(family: str, directory: Path) -> None:
    for name, model in all_models(family):
        thumb = family == "arm" and "CORTEX_M" in name
        code, _, result = PROGRAMS["thumb" if thumb else family]
        program = bytes.fromhex(code)
        uc: Any = new_uc(family)
        uc.ctl_set_cpu_model(model)
        path = directory / name
        with rrgdb.attach(uc, path, memory=1 << 20) as session:
            uc.mem_map(CODE, PAGE)
            uc.mem_map(DATA, PAGE)
            uc.mem_write(CODE, program)
            if family in POINTERS:
                uc.reg_write(register(family, POINTERS[family]), DATA)
            uc.emu_start(CODE | thumb, CODE + len(program))
            assert uc.reg_read(register(family, result)) == 3
            end = session.icount
            session.history.seek(end // 2)
            seen = session.history.state_digest()
            assert uc.reg_read(register(family, result)) == (end // 2 + 1) // 2
        with rrgdb.open(path) as recording:
            assert recording.verify() > 0
            recording.seek(end)
            recording.seek(end // 2)
            assert recording.state_digest() == seen
            assert recording.memory(DATA, 1)[0] == end // 4
            recording.seek(end)
            assert recording.registers[result] == recording.memory(DATA, 1)[0] == 3
        print(name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
