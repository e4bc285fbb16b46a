"""Device models, one module each, and the table of their classes."""

from __future__ import annotations

from collections.abc import Callable

from rrgdb.board.device import Device, Machine
from rrgdb.board.devices.clint import Clint
from rrgdb.board.devices.cmos_rtc import CmosRtc
from rrgdb.board.devices.counter import Counter
from rrgdb.board.devices.debug_exit import DebugExit, ExitRegister
from rrgdb.board.devices.entropy import Entropy
from rrgdb.board.devices.goldfish_rtc import GoldfishRtc
from rrgdb.board.devices.ns16550 import Ns16550
from rrgdb.board.devices.pl011 import Pl011
from rrgdb.board.devices.pl031 import Pl031
from rrgdb.board.devices.syscon import Syscon
from rrgdb.board.devices.virtio_mmio import DenseVirtioMmio, VirtioMmio

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
    "syscon": Syscon,
    "virtio-mmio": VirtioMmio,
}

__all__ = ["DEVICES", "DeviceFactory"]
