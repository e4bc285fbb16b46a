"""What a debugger sees: packets to ``rrgdb replay`` and ``rrgdb run`` over a local TCP connection."""

from __future__ import annotations

import time

from benchlib.bench import Bench, positions, power
from benchlib.figures import seconds, timed
from benchlib.guests import Guest
from benchlib.rsp import Client, resident, serving

GROUP = "stub"
FOLLOWING = 20
PACKETS = 1000
AFTER = (0.01, 0.02, 0.03, 0.05, 0.08)
"""seconds that a move runs before Ctrl-C, each in turn"""
# Agent expressions (GDB manual): const64 ADDRESS, ref32, const32 VALUE, equal, end.
CONST64, REF32, CONST32, EQUAL, END = 0x25, 0x19, 0x24, 0x13, 0x27


def _equals(address: int, value: int) -> bytes:
    """``*(unsigned *)address == value`` as a condition of a Z packet."""
    code = bytes([CONST64, *address.to_bytes(8, "big"), REF32, CONST32, *value.to_bytes(4, "big"), EQUAL, END])
    return b";X%x,%s" % (len(code), code.hex().encode())


def _breakpoint(guest: Guest, role: str) -> bytes:
    return b"0,%x,%x" % (guest.at(role), guest.arch.breakpoint_kinds[0])


def _packets(bench: Bench, guest: Guest, client: Client) -> None:
    for name, packet in (("m, 4 bytes", b"m%x,4" % guest.at("counter")), ("g", b"g"), ("qC", b"qC")):
        taken = [sum(seconds(client.ask, packet, repeat=PACKETS)) for _ in range(bench.repeat)]
        bench.figures.add(GROUP, guest.name, f"round trips: {name}", "/s", [PACKETS / s for s in taken])


def _steps(bench: Bench, guest: Guest, client: Client, end: int) -> None:
    for icount in positions(end):
        # A run that stops there leaves no checkpoints as `monitor seek` does.
        client.monitor("seek start")
        client.monitor(f"replay_break {icount}")
        client.move(b"c")
        client.monitor("replay_delete_break")
        where = power(icount)
        first = seconds(client.move, b"bs")
        bench.figures.ms(GROUP, guest.name, f"first bs at {where}", first)
        following = seconds(client.move, b"bs", repeat=FOLLOWING)
        bench.figures.ms(GROUP, guest.name, f"following bs at {where}", following)
        hundred = [sum(seconds(client.move, b"bs", repeat=100)) for _ in range(bench.repeat)]
        bench.figures.ms(GROUP, guest.name, f"100 × bs at {where}", hundred)
        forward = seconds(client.move, b"s", repeat=FOLLOWING)
        bench.figures.ms(GROUP, guest.name, f"s at {where}", forward)


def _searches(bench: Bench, guest: Guest, client: Client) -> None:
    counter = guest.at("counter")
    cases = (
        ("hit near the beginning", _breakpoint(guest, "early"), b""),
        ("1,000 hits", _breakpoint(guest, "often"), b""),
        ("condition, true 10 hits back", _breakpoint(guest, "counts"), _equals(counter, guest.last - 10)),
        ("condition, true half-way", _breakpoint(guest, "counts"), _equals(counter, guest.last // 2)),
        ("condition, never true", _breakpoint(guest, "counts"), _equals(counter, guest.last + 1)),
        ("watch, last write near", b"2,%x,4" % counter, b""),
    )
    for name, where, condition in cases:
        client.ok(b"Z" + where + condition)
        taken: list[float] = []
        stops: set[bytes] = set()
        for _ in range(bench.repeat):
            client.monitor("seek end")
            took, stop = timed(client.move, b"bc")
            taken.append(took)
            stops.add(stop)
        client.ok(b"z" + where)
        note = "" if len(stops) == 1 else "WRONG: several stops"
        bench.figures.ms(GROUP, guest.name, f"bc from the end: {name}", taken, note=note)


def _interrupts(bench: Bench, guest: Guest, client: Client, name: str, move: bytes, back: str) -> None:
    """Ctrl-C to its stop reply. ``back``: the monitor command that goes to where ``move`` begins."""
    taken = []
    for delay in AFTER:
        if back:
            client.monitor(back)
        client.send(move)
        time.sleep(delay)
        took, reply = timed(client.interrupted)
        if reply.startswith(b"T02"):
            taken.append(took)
    note = "" if taken else "the move was over before"
    bench.figures.ms(GROUP, guest.name, f"Ctrl-C into {name}", taken, note=note)


def _live(bench: Bench, guest: Guest) -> None:
    recording = bench.work / f"{guest.name}-live.rrgdb"
    with serving("run", "-m", f"{guest.memory >> 20}", "-o", recording, guest.elf) as (server, client):
        _interrupts(bench, guest, client, "c, recording live", b"c", "")
        live = seconds(client.move, b"s", repeat=FOLLOWING)
        bench.figures.ms(GROUP, guest.name, "s, recording live", live)
        memory = resident(server.process.pid)
        bench.figures.add(GROUP, guest.name, "memory of `rrgdb run`", "MiB", [memory["peak"]], note="peak")


def measure(bench: Bench, guest: Guest) -> None:
    """All of this group for one guest."""
    with bench.replay(guest) as opened:
        end = opened.timeline.end
    with serving("replay", bench.recording(guest)) as (server, client):
        fresh = resident(server.process.pid)["now"]
        bench.figures.add(GROUP, guest.name, "memory of `rrgdb replay`, at the start", "MiB", [fresh])
        _packets(bench, guest, client)
        _steps(bench, guest, client, end)
        _searches(bench, guest, client)
        client.ok(b"Z" + _breakpoint(guest, "never"))
        _interrupts(bench, guest, client, "bc", b"bc", "seek end")
        _interrupts(bench, guest, client, "c", b"c", "seek start")
        memory = resident(server.process.pid)
        note = f"peak {memory['peak']:.0f}"
        bench.figures.add(GROUP, guest.name, "memory of `rrgdb replay`, after all", "MiB", [memory["now"]], note=note)
    _live(bench, guest)
