"""Whole machines, as data, and their consoles driven from outside: what the emulator is told, what is typed and when.

The command line is QEMU's, so the same machine runs on QEMU: that proves the scripts, and tells a fault of the guest
from one of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rrgdb_tests.e2e.harness import Server, rrgdb_command
from rrgdb_tests.machines.debian import unpacked
from rrgdb_tests.machines.initramfs import PROMPT, initramfs, partitioned_disk

GREETING = "written before the boot"
MODULES = ("virtio_mmio", "virtio_blk", "crc32c_generic", "ext4")


@dataclass(frozen=True)
class Typed:
    """``line`` is typed when ``prompt`` has been shown, behind what was waited for before."""

    prompt: str
    line: str


@dataclass(frozen=True)
class Machine:
    """``options``: for rrgdb and QEMU alike; ``qemu``: what is QEMU's default for rrgdb; ``end``: shown at the end."""

    name: str
    emulator: str
    options: tuple[str, ...]
    script: tuple[Typed, ...]
    end: str
    qemu: tuple[str, ...] = ()
    disk: Path | None = None
    files: tuple[Path, ...] = field(default=())

    def with_disk(self) -> tuple[str, ...]:
        if self.disk is None:
            return self.options
        drive = f"file={self.disk},if=none,id=disk,format=raw"
        return (*self.options, "-drive", drive, "-device", "virtio-blk-device,drive=disk")

    def qemu_command(self) -> list[str]:
        console = ["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]
        return [self.emulator, *self.qemu, *self.with_disk(), "-snapshot", *console]

    def record_command(self, recording: Path, *more: object) -> list[str]:
        return rrgdb_command("record", "-o", recording, *self.with_disk(), "-serial", "stdio", "-no-reboot", *more)


class Console:
    """What a machine shows, read from the beginning to the end."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._read = 0

    def expect(self, text: str) -> None:
        """Wait until ``text`` has been shown behind what was waited for before."""
        match = self.server.wait_for(rf"(?s)\A.{{{self._read},}}?{re.escape(text)}")
        self._read = match.end()

    def follow(self, script: Sequence[Typed]) -> None:
        for typed in script:
            self.expect(typed.prompt)
            self.server.send(typed.line.encode())


def run(command: Sequence[str], machine: Machine) -> str:
    """Run ``machine`` by its whole script; returns what it has shown. It ends by itself with status 0."""
    with Server(machine.name, command=command, stdin=True) as server:
        console = Console(server)
        console.follow(machine.script)
        console.expect(machine.end)
        status = server.wait_exit()
        assert status == 0, f"{machine.name}: status {status}\n{server.console[-2000:]}\n{server.log}"
        return server.console


U_BOOT = (
    Typed("Hit any key to stop autoboot", " "),
    Typed("=> ", "virtio scan\n"),
    Typed("=> ", "virtio info\n"),
    Typed("=> ", "ext4load virtio 0:1 ${loadaddr} greeting; md.b ${loadaddr} 16\n"),
    Typed("=> ", "poweroff\n"),
)


def _disk(name: str, scratch: Path) -> Path:
    """The disk of a machine, made in ``scratch``."""
    content = scratch / f"{name}.content"
    content.mkdir()
    (content / "greeting").write_text(GREETING + "\n")
    disk = scratch / f"{name}.img"
    partitioned_disk(disk, 8, content)
    return disk


def u_boot_riscv64(scratch: Path) -> Machine:
    firmware = unpacked("opensbi", "all") / "usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin"
    u_boot = unpacked("u-boot-qemu", "all") / "usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin"
    return Machine(
        "u-boot-riscv64",
        "qemu-system-riscv64",
        ("-M", "virt", "-m", "128M", "-bios", str(firmware), "-kernel", str(u_boot)),
        U_BOOT,
        "poweroff ...",
        disk=_disk("u-boot-riscv64", scratch),
        files=(firmware, u_boot),
    )


def _u_boot_arm(name: str, emulator: str, cpu: str, board: str, scratch: Path) -> Machine:
    u_boot = unpacked("u-boot-qemu", "all") / f"usr/lib/u-boot/{board}/u-boot.bin"
    return Machine(
        name,
        emulator,
        ("-M", "virt", "-cpu", cpu, "-m", "128M", "-bios", str(u_boot)),
        U_BOOT,
        "poweroff ...",
        disk=_disk(name, scratch),
        files=(u_boot,),
    )


def u_boot_arm64(scratch: Path) -> Machine:
    return _u_boot_arm("u-boot-arm64", "qemu-system-aarch64", "cortex-a57", "qemu_arm64", scratch)


def u_boot_arm(scratch: Path) -> Machine:
    return _u_boot_arm("u-boot-arm", "qemu-system-arm", "cortex-a15", "qemu_arm", scratch)


COMMANDS = (
    "uname -m",
    "mount -t ext4 /dev/vda1 /mnt && cat /mnt/greeting",
    "md5sum /bin/busybox | tee /mnt/sum && sync",
    "umount /mnt && mount -t ext4 /dev/vda1 /mnt && md5sum -c /mnt/sum",
    "umount /mnt; exit",
)
"""typed at the shell's prompt"""


def _linux(name: str, arch: str, kernel_package: str, kernel_name: str, scratch: Path, **more: object) -> Machine:
    kernel, busybox = unpacked(kernel_package, arch), unpacked("busybox-static", arch)
    (image,) = kernel.glob(f"boot/{kernel_name}-*")
    initrd = scratch / f"{name}.cpio"
    initrd.write_bytes(initramfs(kernel, busybox, MODULES))
    emulator, first, append = more["emulator"], more["first"], more["append"]
    assert isinstance(emulator, str)
    assert isinstance(first, tuple)
    return Machine(
        name,
        emulator,
        (*first, "-m", "256M", "-kernel", str(image), "-initrd", str(initrd), "-append", str(append)),
        tuple(Typed(PROMPT, command + "\n") for command in COMMANDS),
        "reboot: Power down",
        disk=_disk(name, scratch),
        files=(image, initrd),
    )


def linux_arm64(scratch: Path) -> Machine:
    return _linux(
        "linux-arm64",
        "arm64",
        "linux-image-cloud-arm64",
        "vmlinuz",
        scratch,
        emulator="qemu-system-aarch64",
        first=("-M", "virt", "-cpu", "cortex-a57"),
        append="console=ttyAMA0 panic=-1",
    )


def linux_riscv64(scratch: Path) -> Machine:
    firmware = unpacked("opensbi", "all") / "usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin"
    return _linux(
        "linux-riscv64",
        "riscv64",
        "linux-image-riscv64",
        "vmlinux",
        scratch,
        emulator="qemu-system-riscv64",
        first=("-M", "virt", "-bios", str(firmware)),
        append="console=ttyS0 panic=-1",
    )


MACHINES: dict[str, Callable[[Path], Machine]] = {
    "u-boot-riscv64": u_boot_riscv64,
    "u-boot-arm64": u_boot_arm64,
    "u-boot-arm": u_boot_arm,
    "linux-arm64": linux_arm64,
    "linux-riscv64": linux_riscv64,
}
"""name -> what makes it in a directory for its files; raises Unavailable"""
