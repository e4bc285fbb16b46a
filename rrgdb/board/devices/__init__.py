"""Device models, one module each, and the table of their classes."""

from __future__ import annotations

from collections.abc import Callable

from rrgdb.board.device import Device, Machine
from rrgdb.board.devices.clock.clint import Clint, SilentClint
from rrgdb.board.devices.clock.cmos_rtc import CmosRtc
from rrgdb.board.devices.clock.cmsdk import CmsdkTimer, CmsdkWatchdog
from rrgdb.board.devices.clock.cmsdk_dual import CmsdkDualTimer
from rrgdb.board.devices.clock.counter import Counter
from rrgdb.board.devices.clock.goldfish_rtc import GoldfishRtc, SilentGoldfishRtc
from rrgdb.board.devices.clock.pl031 import Pl031, SilentPl031
from rrgdb.board.devices.entropy import Entropy
from rrgdb.board.devices.gpio.pl061 import Pl061
from rrgdb.board.devices.intc.gic import Gic
from rrgdb.board.devices.intc.nvic import Mps2Nvic, Nvic
from rrgdb.board.devices.intc.plic import Plic
from rrgdb.board.devices.memory.flash import Flash
from rrgdb.board.devices.memory.fw_cfg import FwCfg
from rrgdb.board.devices.memory.rom import Rom
from rrgdb.board.devices.power.debug_exit import DebugExit, ExitRegister
from rrgdb.board.devices.power.syscon import Syscon
from rrgdb.board.devices.system.mps2 import Mps2FpgaIo, Mps2Scc
from rrgdb.board.devices.system.unimplemented import Unimplemented
from rrgdb.board.devices.uart.cmsdk import CmsdkUart
from rrgdb.board.devices.uart.ns16550 import InterruptingNs16550, Ns16550
from rrgdb.board.devices.uart.pl011 import InterruptingPl011, Pl011
from rrgdb.board.devices.virtio.earlier import EarlierDenseVirtioMmio, EarlierVirtioMmio
from rrgdb.board.devices.virtio.slots import DenseVirtioMmio, VirtioMmio

DeviceFactory = Callable[[str, Machine], Device]
"""(name, machine) -> device in its power-on state"""

DEVICES: dict[str, DeviceFactory] = {
    "clint": Clint,
    "cmos-rtc": CmosRtc,
    "cmsdk-dualtimer": CmsdkDualTimer,
    "cmsdk-timer": CmsdkTimer,
    "cmsdk-uart": CmsdkUart,
    "cmsdk-watchdog": CmsdkWatchdog,
    "counter": Counter,
    "debug-exit": DebugExit,
    "dense-virtio-mmio": DenseVirtioMmio,
    "earlier-dense-virtio-mmio": EarlierDenseVirtioMmio,
    "earlier-virtio-mmio": EarlierVirtioMmio,
    "entropy": Entropy,
    "exit": ExitRegister,
    "gic": Gic,
    "flash": Flash,
    "fw-cfg": FwCfg,
    "goldfish-rtc": GoldfishRtc,
    "interrupting-ns16550": InterruptingNs16550,
    "interrupting-pl011": InterruptingPl011,
    "mps2-fpgaio": Mps2FpgaIo,
    "mps2-nvic": Mps2Nvic,
    "mps2-scc": Mps2Scc,
    "ns16550": Ns16550,
    "nvic": Nvic,
    "pl011": Pl011,
    "pl031": Pl031,
    "pl061": Pl061,
    "silent-pl031": SilentPl031,
    "rom": Rom,
    "plic": Plic,
    "silent-clint": SilentClint,
    "silent-goldfish-rtc": SilentGoldfishRtc,
    "syscon": Syscon,
    "unimplemented": Unimplemented,
    "virtio-mmio": VirtioMmio,
}

__all__ = ["DEVICES", "DeviceFactory"]
