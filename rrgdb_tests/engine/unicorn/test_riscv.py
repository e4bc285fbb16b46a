"""What the engine has of RISC-V beside Unicorn's core."""

from __future__ import annotations

from random import Random

import pytest

from rrgdb.arch.base import Protection
from rrgdb.engine.unicorn.families import FAMILIES
from rrgdb.engine.unicorn.families.base import find_layout
from rrgdb.engine.unicorn.probes.layout import Context
from rrgdb.engine.unicorn.probes.riscv import find_pmp_table
from rrgdb_tests.arch.cpus import UnicornCpu
from rrgdb_tests.engine.unicorn.rig import ARCHES


@pytest.mark.parametrize("family", ["riscv64", "riscv32"])
def test_a_pmp_table_that_is_written_changes_nothing_else(family: str) -> None:
    arch, random = ARCHES[family], Random(family)
    layout = find_layout(FAMILIES[family])
    table = find_pmp_table(arch.bits == 64, layout.more_bytes)
    state = random.randbytes(Context(UnicornCpu(arch).uc, layout).size)
    firsts = [random.getrandbits(30) for _ in range(16)]
    entries = [Protection(first, first + random.choice((-1, 3, 4095)), random.randrange(8), False) for first in firsts]
    written = table.write(state, entries)
    own = {table.count + n for n in range(4)}
    own |= {table.configurations + n * table.stride for n in range(16)}
    own |= {table.ranges + n for n in range(16 * table.stride)}
    assert {at for at in range(len(state)) if state[at] != written[at]} <= own
    assert table.write(written, ())[table.count : table.count + 4] == bytes(4)
    assert written[table.count : table.count + 4] == b"\x10\0\0\0"
