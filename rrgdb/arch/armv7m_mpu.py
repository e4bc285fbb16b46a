"""Memory protection unit of the M profile: what its regions, or the default memory map, allow.

Source: DDI 0403, sections B3.1 and B3.5; where it is open, QEMU's ``get_phys_addr_pmsav7``. Permissions are 1 read,
2 write, 4 execute.
"""

from __future__ import annotations

from rrgdb.arch import armv7m_nvic as nvic

REGIONS = 8
READ, WRITE, EXECUTE = 1, 2, 4
ENABLE, HFNMIENA, PRIVDEFENA = 1, 2, 4
"""bits of MPU_CTRL"""
CONTROL_NPRIV = 1

Region = tuple[int, int, int, int]
"""(first address, last, permissions with privilege, without)"""

_ALL, _NO_WRITE, _NOTHING = READ | WRITE | EXECUTE, READ | EXECUTE, 0
_ACCESS = (
    (_NOTHING, _NOTHING),
    (_ALL, _NOTHING),
    (_ALL, _NO_WRITE),
    (_ALL, _ALL),
    (_NOTHING, _NOTHING),
    (_NO_WRITE, _NOTHING),
    (_NO_WRITE, _NO_WRITE),
    (_NO_WRITE, _NO_WRITE),
)
"""by RASR.AP: (with privilege, without)"""
_SUBREGIONS = 8
_SMALLEST_WITH_SUBREGIONS = 256


def is_on(cpu: nvic.Registers) -> bool:
    return bool(cpu.read("mpu_ctrl") & ENABLE)


def negative_priority(cpu: nvic.Registers) -> bool:
    """Whether NMI or HardFault is being handled; FAULTMASK is for others to look at."""
    return bool(cpu.read("nvic_active") & (1 << nvic.NMI | 1 << nvic.HARD_FAULT))


def privileged(cpu: nvic.Registers) -> bool:
    return nvic.in_handler(cpu) or not cpu.read("control") & CONTROL_NPRIV


def regions(cpu: nvic.Registers) -> tuple[Region, ...]:
    """Those that are on, without the subregions that are not; of several that hold an address the first one decides."""
    found: list[Region] = []
    for n in reversed(range(REGIONS)):
        base, attributes = cpu.read(f"mpu_rbar{n}"), cpu.read(f"mpu_rasr{n}")
        bits = (attributes >> 1 & 0x1F) + 1
        if not attributes & 1 or bits == 1 or base & (1 << bits) - 1:
            continue
        with_privilege, without = _ACCESS[attributes >> 24 & 7]
        if attributes >> 28 & 1:
            with_privilege, without = with_privilege & ~EXECUTE, without & ~EXECUTE
        if 1 << bits < _SMALLEST_WITH_SUBREGIONS:
            found.append((base, base + (1 << bits) - 1, with_privilege, without))
            continue
        size = (1 << bits) // _SUBREGIONS
        found += (
            (base + k * size, base + (k + 1) * size - 1, with_privilege, without)
            for k in range(_SUBREGIONS)
            if not attributes >> 8 + k & 1
        )
    return tuple(found)


def by_default(address: int) -> int:
    """In the default memory map: devices, and the system's own space, are never executed (section B3.1.1)."""
    never = 0x40000000 <= address < 0x60000000 or address >= 0xA0000000
    return READ | WRITE if never else _ALL


def allows(cpu: nvic.Registers, address: int, with_privilege: bool) -> int:
    control = cpu.read("mpu_ctrl")
    negative = negative_priority(cpu) or cpu.read("faultmask") & 1
    if not control & ENABLE or (negative and not control & HFNMIENA) or address >> 20 == 0xE00:
        return by_default(address)
    for first, last, privileged_ones, others in regions(cpu):
        if first <= address <= last:
            allowed = privileged_ones if with_privilege else others
            return allowed if address < 0xE0000000 else allowed & ~EXECUTE
    return by_default(address) if with_privilege and control & PRIVDEFENA else 0


def words_allowed(cpu: nvic.Registers, address: int, count: int, access: int, with_privilege: bool) -> int:
    """How many words from ``address`` on may be accessed before the first that may not."""
    if not is_on(cpu):
        return count
    for n in range(count):
        if not allows(cpu, address + 4 * n & 0xFFFFFFFF, with_privilege) & access:
            return n
    return count
