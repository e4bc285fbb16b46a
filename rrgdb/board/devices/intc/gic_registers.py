"""Offsets, fields and sizes of QEMU's ``arm_gic`` (GICv2, ARM IHI 0048B, chapter 4) with one CPU and 288 interrupts."""

from __future__ import annotations

INTERRUPTS = 288
"""INTIDs: 16 SGIs, 16 PPIs, 256 SPIs"""
SGIS = 16
INTERNAL = 32
"""SGIs and PPIs: those that each CPU has for itself"""
SPIS = INTERRUPTS - INTERNAL
GIC_PPI = 1000
"""interrupt lines below it are SPIs (INTID - 32); from it on, PPIs (INTID - 16)"""
LINES = GIC_PPI + INTERNAL - SGIS

SPURIOUS, OTHER_GROUP = 1023, 1022
"""what GICC_IAR and GICC_HPPIR say without an interrupt, and of one of group 1 unless GICC_CTLR.AckCtl"""
IDLE = 0x100
"""running priority while nothing is active: below all that an interrupt can have"""

DISTRIBUTOR_BYTES = 0x1000
CPU_INTERFACE = 0x10000
"""where the CPU interface begins, from the distributor's base"""
BYTES = CPU_INTERFACE + 0x2000

ENABLE_GROUPS = 3
"""EnableGrp0 and EnableGrp1 in GICD_CTLR and GICC_CTLR"""
CTLR_ACK_CTL, CTLR_FIQ_EN, CTLR_CBPR, CTLR_EOI_MODE = 0x004, 0x008, 0x010, 0x200
CTLR_MASK = 0x21F

GICD_CTLR, GICD_TYPER, GICD_IIDR, GICD_SGIR = 0x000, 0x004, 0x008, 0xF00
TYPER = INTERRUPTS // 32 - 1
"""one CPU, no security extensions"""
GICD_IIDR_VALUE = 0x43B
GICD_ID = 0xFD0
GICD_ID_VALUES = (0x04, 0, 0, 0, 0x90, 0xB4, 0x2B, 0x00, 0x0D, 0xF0, 0x05, 0xB1)
"""one word each: ICPIDR4 to 7, 0 to 3, ICCIDR0 to 3"""

BITMAPS: tuple[tuple[int, str], ...] = (
    (0x080, "group"),
    (0x100, "set-enable"),
    (0x180, "clear-enable"),
    (0x200, "set-pending"),
    (0x280, "clear-pending"),
    (0x300, "set-active"),
    (0x380, "clear-active"),
)
"""first offset of the registers with one bit an interrupt; each kind has 128 bytes"""
BITMAP_SPACE = 0x80
GICD_PRIORITY, GICD_TARGETS, GICD_CONFIG, GICD_CLEAR_SGI, GICD_SET_SGI = 0x400, 0x800, 0xC00, 0xF10, 0xF20

GICC_CTLR, GICC_PMR, GICC_BPR, GICC_IAR, GICC_EOIR, GICC_RPR, GICC_HPPIR, GICC_ABPR = range(0, 0x20, 4)
GICC_APR, GICC_NSAPR, GICC_IIDR, GICC_DIR = 0xD0, 0xE0, 0xFC, 0x1000
APRS = 4
"""words of 32 active priorities each: 128 levels, priority >> 1"""
MIN_ABPR = 1
GICC_IIDR_VALUE = 0x2043B
