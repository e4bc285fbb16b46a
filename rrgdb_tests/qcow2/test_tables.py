"""A comparison that loads more tables than the cache has room for at first."""

from __future__ import annotations

from pathlib import Path

from rrgdb.qcow2 import Image

CLUSTER = 4096
TABLE_SPAN = CLUSTER // 8 * CLUSTER


def test_diff_of_snapshots_with_many_tables_in_a_fresh_image(tmp_path: Path) -> None:
    path = tmp_path / "many.qcow2"
    tables = 100
    with Image.create(path, 0, cluster_size=CLUSTER) as image:
        for round_ in (1, 2):
            image.write_vmstate([(n * TABLE_SPAN, bytes([round_]) * CLUSTER) for n in range(tables)])
            image.create_snapshot(f"s{round_}", vm_state_size=tables * TABLE_SPAN, icount=round_)
    with Image.open(path) as image:
        a, b = image.snapshots
        assert image.diff_vmstate(a, b, 0, tables * TABLE_SPAN) == [n * TABLE_SPAN for n in range(tables)]
