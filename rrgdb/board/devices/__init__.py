"""Device models, one module each, and the table of their classes."""

from __future__ import annotations

from rrgdb.board.device import DeviceFactory
from rrgdb.lazy import Imported

DEVICES: Imported[DeviceFactory] = Imported(
    {
        "clint": "rrgdb.board.devices.clock.clint:Clint",
        "cmos-rtc": "rrgdb.board.devices.clock.cmos_rtc:CmosRtc",
        "cmsdk-dualtimer": "rrgdb.board.devices.clock.cmsdk_dual:CmsdkDualTimer",
        "cmsdk-timer": "rrgdb.board.devices.clock.cmsdk:CmsdkTimer",
        "cmsdk-uart": "rrgdb.board.devices.uart.cmsdk:CmsdkUart",
        "cmsdk-watchdog": "rrgdb.board.devices.clock.cmsdk:CmsdkWatchdog",
        "counter": "rrgdb.board.devices.clock.counter:Counter",
        "debug-exit": "rrgdb.board.devices.power.debug_exit:DebugExit",
        "dense-virtio-mmio": "rrgdb.board.devices.virtio.slots:DenseVirtioMmio",
        "earlier-dense-virtio-mmio": "rrgdb.board.devices.virtio.earlier:EarlierDenseVirtioMmio",
        "earlier-virtio-mmio": "rrgdb.board.devices.virtio.earlier:EarlierVirtioMmio",
        "entropy": "rrgdb.board.devices.entropy:Entropy",
        "exit": "rrgdb.board.devices.power.debug_exit:ExitRegister",
        "gic": "rrgdb.board.devices.intc.gic:Gic",
        "flash": "rrgdb.board.devices.memory.flash:Flash",
        "fw-cfg": "rrgdb.board.devices.memory.fw_cfg:FwCfg",
        "goldfish-rtc": "rrgdb.board.devices.clock.goldfish_rtc:GoldfishRtc",
        "interrupting-ns16550": "rrgdb.board.devices.uart.ns16550:InterruptingNs16550",
        "interrupting-pl011": "rrgdb.board.devices.uart.pl011:InterruptingPl011",
        "mps2-fpgaio": "rrgdb.board.devices.system.mps2:Mps2FpgaIo",
        "mps2-nvic": "rrgdb.board.devices.intc.nvic:Mps2Nvic",
        "mps2-scc": "rrgdb.board.devices.system.mps2:Mps2Scc",
        "ns16550": "rrgdb.board.devices.uart.ns16550:Ns16550",
        "nvic": "rrgdb.board.devices.intc.nvic:Nvic",
        "pl011": "rrgdb.board.devices.uart.pl011:Pl011",
        "pl031": "rrgdb.board.devices.clock.pl031:Pl031",
        "pl061": "rrgdb.board.devices.gpio.pl061:Pl061",
        "silent-pl031": "rrgdb.board.devices.clock.pl031:SilentPl031",
        "rom": "rrgdb.board.devices.memory.rom:Rom",
        "plic": "rrgdb.board.devices.intc.plic:Plic",
        "silent-clint": "rrgdb.board.devices.clock.clint:SilentClint",
        "silent-goldfish-rtc": "rrgdb.board.devices.clock.goldfish_rtc:SilentGoldfishRtc",
        "syscon": "rrgdb.board.devices.power.syscon:Syscon",
        "unimplemented": "rrgdb.board.devices.system.unimplemented:Unimplemented",
        "virtio-mmio": "rrgdb.board.devices.virtio.slots:VirtioMmio",
    }
)

__all__ = ["DEVICES"]
