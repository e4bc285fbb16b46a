"""Saving is total, for every device of the table."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrgdb.board.device import Device
from rrgdb.board.devices import DEVICES, DeviceFactory
from rrgdb.board.devices.uart.line import ReceivingLine
from rrgdb.board.devices.virtio.blk import VirtioBlk
from rrgdb.board.devices.virtio.console import VirtioConsole
from rrgdb.board.devices.virtio.earlier import EarlierVirtioBlk
from rrgdb.board.devices.virtio.rng import VirtioRng
from rrgdb_tests.board.fakes import FakeDisk, FakeHost, FakeMachine

ALL: dict[str, DeviceFactory] = {
    **DEVICES,
    "earlier-virtio-blk": lambda name, machine: EarlierVirtioBlk(machine, FakeDisk(bytes(4096), name)),
    "virtio-blk": lambda name, machine: VirtioBlk(machine, FakeDisk(bytes(4096), name), 1),
    "legacy-virtio-blk": lambda name, machine: VirtioBlk(machine, FakeDisk(bytes(4096), name), 1, legacy=True),
    "virtio-rng": lambda name, machine: VirtioRng(name, machine, 1),
    "virtio-console": lambda name, machine: VirtioConsole(name, machine, 1),
}
OFFSETS = st.one_of(
    st.integers(0, 0x4C),
    st.sampled_from([0x4000, 0x4004, 0xBFF8, 0xBFFC, 0xFE0, 0xFFC]),
    st.sampled_from([0x2000, 0x2080, 0x200000, 0x200004, 0x201000, 0x201004]),
    st.integers(0, 0xFFFF),
)
SIZES = st.sampled_from([1, 2, 4])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), OFFSETS, SIZES),
        st.tuples(st.just("write"), OFFSETS, SIZES, st.integers(0, 2**32 - 1)),
        st.tuples(st.just("input"), st.binary(max_size=40)),
        st.tuples(st.just("time"), st.integers(0, 10**12)),
        st.tuples(st.just("line"), st.integers(1, 31), st.booleans()),
    ),
    max_size=40,
)


def build(name: str) -> tuple[Device, FakeMachine]:
    machine = FakeMachine(FakeHost())
    return ALL[name]("dev", machine), machine


def apply(device: Device, machine: FakeMachine, operations: list[Any]) -> list[int]:
    answers = []
    for kind, *arguments in operations:
        match kind:
            case "read":
                value = device.read(*arguments)
                assert 0 <= value < 1 << 8 * max(arguments[1], 4)
                answers.append(value)
            case "write":
                offset, size, value = arguments
                device.write(offset, size, value & ((1 << 8 * size) - 1))
            case "input":
                for sink in machine.host.sinks.values():
                    sink(arguments[0])
            case "line":
                machine.irq(*arguments)
            case "time":
                machine.now_ns += arguments[0]
                machine.host.clock_ns += arguments[0]
                machine.icount += arguments[0] // 7
                machine.timers.run_out(machine.now_ns, lambda: False)
    return answers


def total(name: str, before: list[Any], after: list[Any]) -> None:
    device, machine = build(name)
    apply(device, machine, before)
    state = device.save()
    assert device.save() == state
    copy, other = build(name)
    other.now_ns, other.icount = machine.now_ns, machine.icount
    other.host.clock_ns, other.host.random = machine.host.clock_ns, machine.host.random
    other.cpu.registers = dict(machine.cpu.registers)
    copy.load(state)
    other.timers.load(machine.timers.save())
    assert copy.save() == state
    sent = len(machine.host.outputs)
    first = apply(device, machine, after)
    assert apply(copy, other, after) == first
    assert copy.save() == device.save()
    assert other.host.outputs == machine.host.outputs[sent:]
    device.load(state)
    assert device.save() == state
    if isinstance(device, ReceivingLine):
        # It is outside the device.
        device.line.clear()
    device.reset()
    fresh, other = build(name)
    other.now_ns = machine.now_ns
    fresh.reset()
    assert device.save() == fresh.save()


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25, deadline=None)
@given(before=OPERATIONS, after=OPERATIONS)
def test_save_is_total(name: str, before: list[Any], after: list[Any]) -> None:
    total(name, before, after)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@settings(max_examples=1500, deadline=None)
@given(before=OPERATIONS, after=OPERATIONS)
def test_save_is_total_exhaustive(name: str, before: list[Any], after: list[Any]) -> None:
    total(name, before, after)


def hostile(name: str, state: bytes) -> None:
    device, machine = build(name)
    before = device.save()
    try:
        device.load(state)
    except ValueError:
        assert device.save() == before
        return
    assert device.save() == state
    apply(device, machine, [("read", offset, 4) for offset in range(0x4C)])
    apply(device, machine, [("write", offset, 1, 0x55) for offset in range(0x4C)])


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40, deadline=None)
@given(state=st.binary(max_size=200))
def test_load_of_any_bytes(name: str, state: bytes) -> None:
    hostile(name, state)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_load_of_damaged_state(name: str, data: st.DataObject) -> None:
    device, machine = build(name)
    apply(device, machine, data.draw(OPERATIONS))
    state = bytearray(device.save())
    if state:
        state[data.draw(st.integers(0, len(state) - 1))] = data.draw(st.integers(0, 255))
    hostile(name, bytes(state))


@pytest.mark.parametrize("name", ALL)
def test_load_refuses_short_and_long_state(name: str) -> None:
    device, _ = build(name)
    state = device.save()
    with pytest.raises(ValueError, match="dev: "):
        device.load(state + b"\0")
    for length in range(len(state)):
        with pytest.raises(ValueError, match="dev: "):
            device.load(state[:length])
