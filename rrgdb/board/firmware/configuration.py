"""What firmware finds in fw_cfg: QEMU's items for a machine with one CPU and no screen."""

from __future__ import annotations

from rrgdb.board.devices.memory import fw_cfg
from rrgdb.board.spec import BoardSpec

_HAS_DMA = 3
"""the traditional interface, and DMA"""


def configuration(
    board: BoardSpec, kernel: bytes | None = None, initrd: bytes | None = None, command_line: str = ""
) -> dict[int, bytes]:
    """The items by their keys, with a kernel that firmware is to start; none for a board without the device."""
    if all(place.factory is not fw_cfg.FwCfg for place in board.placements):
        return {}
    items = {
        fw_cfg.SIGNATURE: b"QEMU",
        fw_cfg.INTERFACE: _HAS_DMA.to_bytes(4, "little"),
        fw_cfg.UUID: bytes(16),
        fw_cfg.NO_GRAPHICS: b"\1\0",
        fw_cfg.CPUS: b"\1\0",
        fw_cfg.BOOT_MENU: bytes(2),
        **fw_cfg.directory({"bios-geometry": b"", "bootorder": b"", "etc/boot-fail-wait": b"\xff" * 4}),
    }
    if kernel is not None:
        text = command_line.encode() + b"\0"
        for size, key, data in (
            (fw_cfg.KERNEL_SIZE, fw_cfg.KERNEL_DATA, kernel),
            (fw_cfg.INITRD_SIZE, fw_cfg.INITRD_DATA, initrd),
            (fw_cfg.CMDLINE_SIZE, fw_cfg.CMDLINE_DATA, text),
        ):
            if data is not None:
                items |= {size: len(data).to_bytes(4, "little"), key: data}
    return items
