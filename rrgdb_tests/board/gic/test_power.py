"""PSCI on the Arm boards, and what lies between the GIC's two parts."""

from __future__ import annotations

import pytest

from rrgdb.arch import ARCHES
from rrgdb.board.boards import default_board
from rrgdb.board.firmware.image import load_raw, place_image
from rrgdb.board.machine import Board
from rrgdb.engine.memory import Ram
from rrgdb.engine.unicorn.engine import UnicornEngine
from rrgdb.guest import End
from rrgdb_tests.board.fakes import FakeHost
from rrgdb_tests.engine.unicorn.rig import BOARD_RAM, assemble

FAMILIES = ("aarch64", "arm")


def call(family: str, function: int, *, reboot: bool = True) -> Board:
    """A guest that counts in RAM behind the program, and calls PSCI."""
    spec, arch = default_board(family), ARCHES[family]
    a, b, c = ("x0", "w1", "x2") if family == "aarch64" else ("r0", "r1", "r2")
    count = f"ldr {c}, =0x40001000\n ldr {b}, [{c}]\n add {b}, {b}, #1\n str {b}, [{c}]"
    code = f"{count}\n ldr {a}, ={function:#x}\n hvc #0\n nop"
    placed = place_image(
        load_raw(assemble(family, code), "code", arch, spec.ram_base, spec.ram_base), spec, spec.ram(BOARD_RAM)
    )
    engine = UnicornEngine(placed.arch, Ram(spec.memory_bytes(placed.ram)))
    return Board(spec, engine, placed, FakeHost(), reboot=reboot)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cpu_that_is_off_is_off_for_good(family: str) -> None:
    guest = call(family, 0x84000002)
    guest.run_until(100)
    assert (guest.end, guest.engine.icount) == (End("halt", 0), 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reset_restarts_the_machine_and_ram_stays(family: str) -> None:
    guest = call(family, 0x84000009)
    guest.run_until(20)
    assert (guest.end, guest.engine.icount) == (None, 20)
    assert guest.engine.read_memory(0x40001000, 4) == (3).to_bytes(4, "little")


def test_a_reset_is_none_of_the_uart_and_the_clock() -> None:
    """As QEMU 7.2's, which have none; the interrupt controller does not hear of lines that stay high."""
    guest = call("aarch64", 0x84000009)
    devices = {device.name: device for device in guest.devices}
    uart, clock, gpio = devices["serial0"], devices["rtc"], devices["gpio"]
    for device, offset, value in ((uart, 0x24, 77), (uart, 0x38, 0x50), (clock, 0x08, 1000), (clock, 0x04, 1000)):
        device.write(offset, 4, value)
    clock.write(0x10, 4, 1)
    gpio.write(0x400, 4, 0x55)
    guest.host.sinks["serial0"](bytes(range(40)))
    kept = uart.save(), clock.save()
    assert (guest.is_raised(1), guest.is_raised(2)) == (True, True)
    guest.run_until(7)
    assert (uart.save(), clock.save(), gpio.read(0x400, 4)) == (*kept, 0)
    assert (guest.is_raised(1), guest.is_raised(2)) == (False, False)
    clock.write(0x10, 4, 1)
    assert guest.is_raised(2)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_reboot_a_reset_is_the_end(family: str) -> None:
    guest = call(family, 0x84000009, reboot=False)
    guest.run_until(20)
    assert guest.end is not None
    assert (guest.end.kind, guest.engine.icount) == ("exit", 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_suspended_cpu_that_nothing_wakes_goes_on(family: str) -> None:
    guest = call(family, 0x84000001)
    guest.run_until(7)
    assert (guest.end, guest.engine.icount, guest.virtual_ns()) == (None, 7, 7)
    state = guest.save_devices()
    guest.load_devices(state)
    assert guest.save_devices() == state


@pytest.mark.parametrize("offset", [0x1000, 0xF000, 0x12000])
def test_nothing_is_between_the_parts_of_the_gic(offset: int) -> None:
    spec = default_board("aarch64")
    code = assemble("aarch64", f"ldr x0, ={0x08000000 + offset:#x}\n ldr w1, [x0]")
    placed = place_image(
        load_raw(code, "code", ARCHES["aarch64"], spec.ram_base, spec.ram_base), spec, spec.ram(BOARD_RAM)
    )
    guest = Board(spec, UnicornEngine(placed.arch, Ram(spec.memory_bytes(placed.ram))), placed, FakeHost())
    guest.run_until(10)
    assert guest.end == End("signal", 11)
    assert guest.cause.endswith(f"load of {0x08000000 + offset:#x}, where nothing is mapped")
