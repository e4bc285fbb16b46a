"""The device tree of the Arm boards: what QEMU 7.2 makes for ``-M virt,gic-version=2``, for what the board has.

Order, names, phandles and values are QEMU's. Its PCI host, the GIC's MSI frame and the performance monitors, whose
interrupt is not there, are left out.
"""

from __future__ import annotations

from rrgdb.board.devices.gpio.pl061 import POWER_KEY
from rrgdb.board.devices.intc.gic_registers import CPU_INTERFACE
from rrgdb.board.firmware.devicetree import Node, TreeFacts, Value, cells
from rrgdb.board.firmware.psci import psci_node
from rrgdb.board.spec import Placement

CLOCK, CPU, GIC, GPIO = 0x8000, 0x8001, 0x8002, 0x8004
"""phandles"""
SPI, PPI = 0, 1
EDGE, HIGH, HIGH_ON_CPU_0 = 1, 4, 0x104
"""third cell of an interrupt"""
CLOCK_HZ = 24_000_000
VIRTIO_BYTES = 0x200
FW_CFG_BYTES = 0x18
CORES = {"max": "arm,cortex-a57"}
"""compatible string of a CPU model, where it is not ``arm,`` and its name"""
TIMER_PPIS = (13, 14, 11, 10)
"""PPIs (INTID - 16) of the secure, the physical, the virtual and the hypervisor's timer"""
KEY_POWER = 116
"""Linux's number of the key"""
PLATFORM_BUS = (0x0C000000, 0x02000000)


def arm_tree(facts: TreeFacts) -> Node:
    """The tree; ``/chosen`` holds the console alone."""
    spec = facts.spec
    places = {place.name: place for place in spec.placements}
    wide = "aarch64" in spec.arches
    children = [
        psci_node(wide),
        *(_memory(base, size) for base, size in facts.ram.regions),
        _platform_bus(),
        *([_fw_cfg(places["fw-cfg"])] if "fw-cfg" in places else []),
        *_virtio(places["virtio"]),
        _keys(),
        _gpio(places["gpio"]),
        _primecell("pl031", places["rtc"], ("apb_pclk",)),
        _primecell("pl011", places["serial0"], ("uartclk", "apb_pclk")),
        _gic(places["gic"]),
        *_flash(tuple(place for name, place in places.items() if name.startswith("flash"))),
        _cpus(CORES.get(facts.cpu, f"arm,{facts.cpu}")),
        _timer(wide),
        _clock(),
        Node("chosen", {"stdout-path": f"/pl011@{places['serial0'].base:x}"}),
    ]
    properties: dict[str, Value] = {
        "interrupt-parent": GIC,
        "model": "linux,dummy-virt",
        "#size-cells": 2,
        "#address-cells": 2,
        "compatible": "linux,dummy-virt",
    }
    return Node("", properties, children)


def _registers(place: Placement) -> tuple[int, ...]:
    return cells(place.base, place.size)


def _interrupt(place: Placement, trigger: int, slot: int = 0) -> tuple[int, ...]:
    assert place.line is not None
    return SPI, place.line + slot, trigger


def _memory(base: int, size: int) -> Node:
    return Node(f"memory@{base:x}", {"reg": cells(base, size), "device_type": "memory"})


def _platform_bus() -> Node:
    base, size = PLATFORM_BUS
    return Node(
        f"platform-bus@{base:x}",
        {
            "interrupt-parent": GIC,
            "ranges": (0, *cells(base), size),
            "#address-cells": 1,
            "#size-cells": 1,
            "compatible": ("qemu,platform", "simple-bus"),
        },
    )


def _fw_cfg(place: Placement) -> Node:
    return Node(
        f"fw-cfg@{place.base:x}",
        {"dma-coherent": None, "reg": cells(place.base, FW_CFG_BYTES), "compatible": "qemu,fw-cfg-mmio"},
    )


def _virtio(place: Placement) -> list[Node]:
    return [
        Node(
            f"virtio_mmio@{base:x}",
            {
                "dma-coherent": None,
                "interrupts": _interrupt(place, EDGE, slot),
                "reg": cells(base, VIRTIO_BYTES),
                "compatible": "virtio,mmio",
            },
        )
        for slot, base in enumerate(range(place.base, place.end, VIRTIO_BYTES))
    ]


def _keys() -> Node:
    poweroff: dict[str, Value] = {
        "gpios": (GPIO, POWER_KEY, 0),
        "linux,code": KEY_POWER,
        "label": "GPIO Key Poweroff",
    }
    return Node("gpio-keys", {"compatible": "gpio-keys"}, [Node("poweroff", poweroff)])


def _gpio(place: Placement) -> Node:
    return Node(
        f"pl061@{place.base:x}",
        {
            "phandle": GPIO,
            "clock-names": "apb_pclk",
            "clocks": CLOCK,
            "interrupts": _interrupt(place, HIGH),
            "gpio-controller": None,
            "#gpio-cells": 2,
            "compatible": ("arm,pl061", "arm,primecell"),
            "reg": _registers(place),
        },
    )


def _primecell(name: str, place: Placement, clocks: tuple[str, ...]) -> Node:
    return Node(
        f"{name}@{place.base:x}",
        {
            "clock-names": clocks,
            "clocks": (CLOCK,) * len(clocks),
            "interrupts": _interrupt(place, HIGH),
            "reg": _registers(place),
            "compatible": (f"arm,{name}", "arm,primecell"),
        },
    )


def _gic(place: Placement) -> Node:
    return Node(
        f"intc@{place.base:x}",
        {
            "phandle": GIC,
            "reg": cells(place.base, CPU_INTERFACE, place.base + CPU_INTERFACE, CPU_INTERFACE),
            "compatible": "arm,cortex-a15-gic",
            "ranges": None,
            "#size-cells": 2,
            "#address-cells": 2,
            "interrupt-controller": None,
            "#interrupt-cells": 3,
        },
    )


def _flash(banks: tuple[Placement, ...]) -> list[Node]:
    if not banks:
        return []
    registers = tuple(cell for place in banks for cell in _registers(place))
    return [Node(f"flash@{banks[0].base:x}", {"bank-width": 4, "reg": registers, "compatible": "cfi-flash"})]


def _cpus(compatible: str) -> Node:
    cpu_map = Node("cpu-map")
    cpu_map.ensure("socket0").ensure("cluster0").ensure("core0").properties["cpu"] = CPU
    cpu = Node("cpu@0", {"phandle": CPU, "reg": 0, "compatible": compatible, "device_type": "cpu"})
    return Node("cpus", {"#size-cells": 0, "#address-cells": 1}, [cpu_map, cpu])


def _timer(wide: bool) -> Node:
    interrupts = tuple(cell for ppi in TIMER_PPIS for cell in (PPI, ppi, HIGH_ON_CPU_0))
    compatible = ("arm,armv8-timer", "arm,armv7-timer") if wide else ("arm,armv7-timer",)
    return Node("timer", {"interrupts": interrupts, "always-on": None, "compatible": compatible})


def _clock() -> Node:
    return Node(
        "apb-pclk",
        {
            "phandle": CLOCK,
            "clock-output-names": "clk24mhz",
            "clock-frequency": CLOCK_HZ,
            "#clock-cells": 0,
            "compatible": "fixed-clock",
        },
    )
