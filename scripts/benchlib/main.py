"""The command line of scripts/bench."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import rrgdb
from benchlib import kernels, peer, qcow2, report, snapshots, speed, store, stub, targets, travel
from benchlib.bench import Bench
from benchlib.figures import Figure, Figures
from benchlib.guests import Guest, build_kit, is_own, kit_guest, ticker

QUICK, DEFAULT, FULL, LONG = 10_000_000, 100_000_000, 1_250_000_000, 10_000_000_000
KIT_CHUNKS, KIT_QUICK_CHUNKS = 1250, 110
OWN_GUESTS = ("riscv64", "aarch64", "x86_64")
KIT_GUESTS = ("rv64", "rv64br", "a64", "a64br")
GROUPS: dict[str, Callable[[Bench, Guest], None]] = {
    speed.GROUP: speed.measure,
    travel.GROUP: travel.measure,
    stub.GROUP: stub.measure,
    snapshots.GROUP: snapshots.measure,
    qcow2.GROUP: qcow2.measure,
    store.GROUP: store.measure,
    kernels.GROUP: kernels.measure,
    "peer": peer.measure,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure rrgdb.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--only", default="", metavar="GROUP,…", help=f"groups out of {', '.join(GROUPS)}")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--quick", action="store_true", help=f"record {QUICK:.0e} instructions instead of {DEFAULT:.0e}"
    )
    length.add_argument("--full", action="store_true", help=f"record {FULL:.2e} instructions")
    length.add_argument("--long", action="store_true", help=f"record {LONG:.0e} instructions")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="how often each is measured (3)")
    parser.add_argument("--peer", choices=("qemu",), help="measure this emulator beside rrgdb; needs --kit")
    parser.add_argument("--kit", type=Path, metavar="DIR", help="the scripts and guests that drive the peer")
    parser.add_argument("--show", type=Path, action="append", metavar="FILE", help="only print what --json wrote")
    parser.add_argument("guests", nargs="*", metavar="GUEST", help="CPU families; with --peer also the kit's guests")
    chosen = parser.parse_args()
    chosen.only = [name for name in chosen.only.split(",") if name]
    if unknown := set(chosen.only) - set(GROUPS):
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}")
    if (chosen.peer is None) != (chosen.kit is None):
        parser.error("--peer and --kit go together")
    chosen.guests = chosen.guests or list(KIT_GUESTS if chosen.peer else OWN_GUESTS)
    if not chosen.peer and (unknown := {name for name in chosen.guests if not is_own(name)}):
        parser.error(f"unknown guest {', '.join(sorted(unknown))}")
    return chosen


def _guest(bench: Bench, name: str, instructions: int) -> Guest:
    # A name that both have (i386) is the kit's.
    if bench.kit is not None and (bench.kit / "guest" / f"{name}.elf").exists():
        return kit_guest(bench.kit, name, KIT_QUICK_CHUNKS if bench.quick else KIT_CHUNKS)
    if not is_own(name):
        raise SystemExit(f"scripts/bench: unknown guest {name}")
    return ticker(name, instructions)


def _measure(bench: Bench, names: list[str], instructions: int, only: list[str]) -> None:
    if bench.kit is not None:
        build_kit(bench.kit, KIT_QUICK_CHUNKS if bench.quick else KIT_CHUNKS)
    guests = [_guest(bench, name, instructions) for name in names]
    for guest in guests:
        for group, measure in GROUPS.items():
            if only and group not in only:
                continue
            if group == "peer" and not guest.kit:
                continue
            if group == kernels.GROUP and (group not in only or guest.name not in kernels.LINUX):
                continue
            if group == qcow2.GROUP and guest is not guests[0]:
                continue
            # Without a guest's own code in it, the cost of a snapshot is the same for all.
            if group in (snapshots.GROUP, store.GROUP) and guest is not guests[0] and group not in only:
                continue
            try:
                measure(bench, guest)
            except Exception as e:
                # The other groups are worth having; the table says what is missing from it.
                traceback.print_exc()
                bench.figures.add(
                    group, guest.name, "broke off", "", (), note=f"{type(e).__name__}: {e}".split("\n")[0]
                )


def main() -> int:
    """Measure what is asked for; the table goes to stdout, progress to stderr."""
    chosen = _arguments()
    if chosen.show:
        shown = [Figure.from_json(record) for path in chosen.show for record in json.loads(path.read_text())["figures"]]
        print(report.markdown(shown))
        print(targets.markdown(shown))
        return 0
    # The servers are the package that is imported here, wherever this is run.
    os.environ["PYTHONPATH"] = str(Path(rrgdb.__file__).parents[1])
    os.environ["PYTHONSAFEPATH"] = "1"
    instructions = QUICK if chosen.quick else FULL if chosen.full else LONG if chosen.long else DEFAULT
    figures = Figures()
    facts = report.describe()
    with tempfile.TemporaryDirectory(prefix="rrgdb-bench-") as work:
        bench = Bench(Path(work), figures, chosen.repeat, chosen.quick)
        if chosen.kit is not None:
            bench.kit = bench.work / "kit"
            shutil.copytree(chosen.kit, bench.kit, copy_function=shutil.copyfile)
            for directory in (bench.kit, *(d for d in bench.kit.rglob("*") if d.is_dir())):
                directory.chmod(0o755)
        try:
            _measure(bench, chosen.guests, instructions, chosen.only)
        except KeyboardInterrupt:
            print("interrupted: what was measured until here follows", file=sys.stderr)
    print("\n".join(f"{key}: {value}" for key, value in facts.items()), end="\n\n")
    print(report.markdown(figures.all))
    print(targets.markdown(figures.all))
    if chosen.json is not None:
        record = {"machine": facts, "arguments": sys.argv[1:], "figures": [f.as_json() for f in figures.all]}
        chosen.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0
