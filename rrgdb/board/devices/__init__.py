"""Device models, one module each, and the table of their classes."""

from __future__ import annotations

from collections.abc import Callable

from rrgdb.board.device import Device, Machine
from rrgdb.board.devices.clock.clint import Clint, SilentClint
from rrgdb.board.devices.clock.cmos_rtc import CmosRtc
from rrgdb.board.devices.clock.counter import Counter
from rrgdb.board.devices.clock.goldfish_rtc import GoldfishRtc, SilentGoldfishRtc
from rrgdb.board.devices.clock.pl031 import Pl031
from rrgdb.board.devices.entropy import Entropy
from rrgdb.board.devices.intc.plic import Plic
from rrgdb.board.devices.power.debug_exit import DebugExit, ExitRegister
from rrgdb.board.devices.power.syscon import Syscon
from rrgdb.board.devices.uart.ns16550 import Ns16550
from rrgdb.board.devices.uart.pl011 import Pl011
from rrgdb.board.devices.virtio.mmio import DenseVirtioMmio, VirtioMmio

DeviceFactory = Callable[[str, Machine], Device]
"""(name, machine) -> device in its power-on state"""

DEVICES: dict[str, DeviceFactory] = {
    "clint": Clint,
    "cmos-rtc": CmosRtc,
    "counter": Counter,
    "debug-exit": DebugExit,
    "dense-virtio-mmio": DenseVirtioMmio,
    "entropy": Entropy,
    "exit": ExitRegister,
    "goldfish-rtc": GoldfishRtc,
    "ns16550": Ns16550,
    "pl011": Pl011,
    "pl031": Pl031,
    "plic": Plic,
    "silent-clint": SilentClint,
    "silent-goldfish-rtc": SilentGoldfishRtc,
    "syscon": Syscon,
    "virtio-mmio": VirtioMmio,
}

__all__ = ["DEVICES", "DeviceFactory"]
