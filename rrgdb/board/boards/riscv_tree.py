"""Device tree of QEMU's ``virt`` machine for RISC-V, one hart: node by node what QEMU 7.2 gives
(``-machine virt,dumpdtb=FILE -smp 1``), in its order, for what the board has.

QEMU's nodes ``pci``, ``platform-bus`` and ``pmu`` are left out: there is no bus to plug anything into, and CPU models
have no counters of events.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rrgdb.arch.riscv_csr import TIMEBASE_HZ
from rrgdb.arch.riscv_interrupts import MEIP, MSIP, MTIP, SEIP
from rrgdb.board.devices.intc.plic import SOURCES
from rrgdb.board.firmware.devicetree import Node, TreeFacts, Value, cells
from rrgdb.board.spec import Placement

CPU, CPU_INTERRUPTS, PLIC, TEST = 1, 2, 3, 4
"""phandles"""
UART_HZ = 3_686_400
UART_BYTES, FW_CFG_BYTES = 0x100, 0x18
SLOT_BYTES = 0x1000
MMU = {32: "riscv,sv32", 64: "riscv,sv48"}


def riscv_tree(facts: TreeFacts) -> Node:
    """``facts.ram`` is one region."""
    places = {place.name: place for place in facts.spec.placements}
    bits = 64 if "riscv64" in facts.spec.arches else 32
    children = [
        *([_fw_cfg(places["fw-cfg"])] if "fw-cfg" in places else []),
        *_flash(tuple(place for name, place in places.items() if name.startswith("flash"))),
        Node("chosen", {"stdout-path": f"/soc/serial@{places['serial0'].base:x}"}),
        _syscon_user("poweroff", 0x5555),
        _syscon_user("reboot", 0x7777),
        Node(f"memory@{facts.spec.ram_base:x}", {"device_type": "memory", "reg": cells(*facts.ram.regions[0])}),
        _cpus(bits),
        _soc(places),
    ]
    return Node(
        properties={"#address-cells": 2, "#size-cells": 2, "compatible": "riscv-virtio", "model": "riscv-virtio,qemu"},
        children=children,
    )


def _fw_cfg(place: Placement) -> Node:
    reg = cells(place.base, FW_CFG_BYTES)
    return Node(f"fw-cfg@{place.base:x}", {"dma-coherent": None, "reg": reg, "compatible": "qemu,fw-cfg-mmio"})


def _flash(banks: tuple[Placement, ...]) -> list[Node]:
    if not banks:
        return []
    reg = cells(*(number for bank in banks for number in (bank.base, bank.size)))
    return [Node(f"flash@{banks[0].base:x}", {"bank-width": 4, "reg": reg, "compatible": "cfi-flash"})]


def _syscon_user(what: str, value: int) -> Node:
    return Node(what, {"value": value, "offset": 0, "regmap": TEST, "compatible": f"syscon-{what}"})


def _cpus(bits: int) -> Node:
    interrupts = Node(
        "interrupt-controller",
        {
            "#interrupt-cells": 1,
            "interrupt-controller": None,
            "compatible": "riscv,cpu-intc",
            "phandle": CPU_INTERRUPTS,
        },
    )
    cpu = Node(
        "cpu@0",
        {
            "phandle": CPU,
            "device_type": "cpu",
            "reg": 0,
            "status": "okay",
            "compatible": "riscv",
            "riscv,isa": f"rv{bits}imafdc_zicsr_zifencei",
            "mmu-type": MMU[bits],
        },
        [interrupts],
    )
    cores = Node("cpu-map", children=[Node("cluster0", children=[Node("core0", {"cpu": CPU})])])
    numbers: dict[str, Value] = {"#address-cells": 1, "#size-cells": 0, "timebase-frequency": TIMEBASE_HZ}
    return Node("cpus", numbers, [cpu, cores])


def _interrupting(
    kind: str, base: int, size: int, line: int | None, compatible: str, more: Mapping[str, Value] = MappingProxyType({})
) -> Node:
    properties: dict[str, Value] = {"interrupts": line, "interrupt-parent": PLIC, **more}
    return Node(f"{kind}@{base:x}", {**properties, "reg": cells(base, size), "compatible": compatible})


def _soc(places: dict[str, Placement]) -> Node:
    rtc, serial, syscon = places["rtc"], places["serial0"], places["syscon"]
    virtio, plic, clint = places["virtio"], places["plic"], places["clint"]
    first = virtio.line or 0
    children = [
        _interrupting("rtc", rtc.base, rtc.size, rtc.line, "google,goldfish-rtc"),
        _interrupting("serial", serial.base, UART_BYTES, serial.line, "ns16550a", {"clock-frequency": UART_HZ}),
        Node(
            f"test@{syscon.base:x}",
            {
                "phandle": TEST,
                "reg": cells(syscon.base, syscon.size),
                "compatible": ("sifive,test1", "sifive,test0", "syscon"),
            },
        ),
        *(
            _interrupting("virtio_mmio", virtio.base + slot * SLOT_BYTES, SLOT_BYTES, first + slot, "virtio,mmio")
            for slot in virtio.slots
        ),
        Node(
            f"plic@{plic.base:x}",
            {
                "phandle": PLIC,
                "riscv,ndev": SOURCES,
                "reg": cells(plic.base, plic.size),
                "interrupts-extended": (CPU_INTERRUPTS, MEIP, CPU_INTERRUPTS, SEIP),
                "interrupt-controller": None,
                "compatible": ("sifive,plic-1.0.0", "riscv,plic0"),
                "#address-cells": 0,
                "#interrupt-cells": 1,
            },
        ),
        Node(
            f"clint@{clint.base:x}",
            {
                "interrupts-extended": (CPU_INTERRUPTS, MSIP, CPU_INTERRUPTS, MTIP),
                "reg": cells(clint.base, clint.size),
                "compatible": ("sifive,clint0", "riscv,clint0"),
            },
        ),
    ]
    return Node("soc", {"#address-cells": 2, "#size-cells": 2, "compatible": "simple-bus", "ranges": None}, children)
