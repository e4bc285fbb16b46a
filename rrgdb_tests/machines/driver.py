"""Whole machines, as data, and their consoles driven from outside: what the emulator is told, what is typed and when.

The command line is QEMU's, so the same machine runs on QEMU: that proves the scripts, and tells a fault of the guest
from one of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rrgdb.opening import BootFiles, GuestOptions, NewDisk, Opened, record
from rrgdb.timeline.stop import Points, StopKind
from rrgdb_tests.e2e.harness import Server, rrgdb_command
from rrgdb_tests.machines.debian import unpacked
from rrgdb_tests.machines.initramfs import PROMPT, TYPED_AT, init, initramfs, partitioned_disk

GREETING = "written before the boot"
STRIDE = 1_000_000
MODULES = ("virtio_mmio", "virtio_blk", "crc32c_generic", "ext4")


@dataclass(frozen=True)
class Typed:
    """``line`` is typed when ``prompt`` has been shown, behind what was waited for before."""

    prompt: str
    line: str


@dataclass(frozen=True)
class Machine:
    """A machine and what is typed at it. ``emulator``: QEMU's program; ``cpu``: where QEMU's default is another;
    ``shown``: what the console shows in the course of the script, ``end`` at the end."""

    name: str
    emulator: str
    script: tuple[Typed, ...]
    shown: tuple[str, ...]
    end: str
    disk: Path
    memory: int = 128
    cpu: str | None = None
    board: str = "virt"
    """rrgdb's name, where neither the images nor ``cpu`` tell the family, as the emulator's name does"""
    bios: Path | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    shift: int = 3
    """``-icount``: an instruction takes 2**shift nanoseconds; loops that wait are short where that is much"""
    legacy: bool = True
    """virtio is that of version 1, QEMU's default"""

    @property
    def files(self) -> list[Path]:
        """What it boots from."""
        return [path for path in (self.bios, self.kernel, self.initrd) if path is not None]

    def options(self, board: str = "virt") -> list[str]:
        """QEMU's, which are rrgdb's as well."""
        drive = ["-drive", f"file={self.disk},if=none,id=disk,format=raw", "-device", "virtio-blk-device,drive=disk"]
        return [*self.without_disk(board), *drive, "-icount", f"shift={self.shift}", "-serial", "stdio", "-no-reboot"]

    def without_disk(self, board: str = "virt") -> list[str]:
        """What the machine is and boots from."""
        words: list[object] = ["-M", board, "-m", f"{self.memory}M"]
        for option, value in (
            ("-cpu", self.cpu),
            ("-bios", self.bios),
            ("-kernel", self.kernel),
            ("-initrd", self.initrd),
            ("-append", self.append),
        ):
            words += [option, value] if value else []
        words += [] if self.legacy else ["-global", "virtio-mmio.force-legacy=false"]
        return list(map(str, words))

    def qemu_command(self) -> list[str]:
        return [self.emulator, *self.options(), "-snapshot", "-display", "none", "-monitor", "none"]

    def record_command(self, recording: Path) -> list[str]:
        return rrgdb_command("record", "-o", recording, *self.options(self.board))

    def record(self, recording: Path) -> Opened:
        """The same in this process, standing at the beginning; waiting takes no time of the host's."""
        boot = BootFiles(kernel=self.kernel, initrd=self.initrd, append=self.append, firmware=self.bios)
        options = GuestOptions(
            board=self.board,
            cpu=self.cpu,
            memory=self.memory << 20,
            boot=boot,
            no_reboot=True,
            shift=self.shift,
            sleep=False,
            virtio=("disk",),
            legacy=self.legacy,
        )
        return record(recording, None, options, disks=[NewDisk(self.disk)])


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


def follow_exactly(opened: Opened, machine: Machine) -> str:
    """Have a machine follow its script to the end, each line typed at a position that follows from what was shown
    before; returns all that was shown. ``STRIDE`` instructions pass between two looks."""
    shown, read = bytearray(), 0
    timeline, door = opened.timeline, opened.door
    assert timeline.recorder is not None
    door.set_output("serial0", shown.extend)
    left = list(machine.script)
    while True:
        stop = timeline.run(Points({}), steps=STRIDE)
        timeline.recorder.close_chunk()
        door.flush_output()
        if stop.kind is not StopKind.STEP:
            break
        if left and (at := shown.find(left[0].prompt.encode(), read)) >= 0:
            typed = left.pop(0)
            read = at + len(typed.prompt)
            door.feed("serial0", typed.line.encode())
    text = shown.decode(errors="replace")
    assert (stop.kind, stop.value, left) == (StopKind.EXIT, 0, []), f"{stop}\n{text[-2000:]}"
    return text


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


def _u_boot(name: str, emulator: str, scratch: Path) -> Machine:
    """Without what it boots from."""
    shown, disk = ("Type: Hard Disk", "24 bytes read"), _disk(name, scratch)
    return Machine(name, emulator, U_BOOT, shown, "poweroff ...", disk, shift=6)


def _u_boot_of(board: str) -> Path:
    return unpacked("u-boot-qemu", "all") / f"usr/lib/u-boot/{board}/u-boot.bin"


def _firmware() -> Path:
    return unpacked("opensbi", "all") / "usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin"


def u_boot_riscv64(scratch: Path) -> Machine:
    machine = _u_boot("u-boot-riscv64", "qemu-system-riscv64", scratch)
    return replace(machine, board="riscv64-virt", bios=_firmware(), kernel=_u_boot_of("qemu-riscv64_smode"))


def u_boot_arm64(scratch: Path) -> Machine:
    machine = _u_boot("u-boot-arm64", "qemu-system-aarch64", scratch)
    return replace(machine, cpu="cortex-a57", bios=_u_boot_of("qemu_arm64"))


def u_boot_arm(scratch: Path) -> Machine:
    machine = _u_boot("u-boot-arm", "qemu-system-arm", scratch)
    return replace(machine, cpu="cortex-a15", bios=_u_boot_of("qemu_arm"))


COMMANDS = (
    "uname -m",
    "mount -t ext4 /dev/vda1 /mnt && cat /mnt/greeting",
    "md5sum /bin/busybox | tee /mnt/sum && sync",
    "umount /mnt && mount -t ext4 /dev/vda1 /mnt && md5sum -c /mnt/sum",
    "umount /mnt; exit",
)
"""typed at the shell's prompt"""


def _linux(arch: str, emulator: str, package: str, console: str, scratch: Path, alone: str) -> Machine:
    name = f"linux-{arch}"
    kernel, busybox = unpacked(package, arch), unpacked("busybox-static", arch)
    (image,) = kernel.glob("boot/vmlinu[xz]-*")
    initrd = scratch / f"{name}.cpio"
    initrd.write_bytes(initramfs(kernel, busybox, MODULES, init(alone) if alone else TYPED_AT))
    return Machine(
        name,
        emulator,
        () if alone else tuple(Typed(PROMPT, command + "\n") for command in COMMANDS),
        () if alone else (GREETING, "/bin/busybox: OK"),
        "reboot: Power down",
        _disk(name, scratch),
        memory=256,
        kernel=image,
        initrd=initrd,
        append=f"console={console} panic=-1",
        legacy=False,
    )


def linux_arm64(scratch: Path, alone: str = "") -> Machine:
    """``alone``: shell commands that it runs by itself in place of the script."""
    machine = _linux("arm64", "qemu-system-aarch64", "linux-image-cloud-arm64", "ttyAMA0", scratch, alone)
    return replace(machine, cpu="cortex-a57")


def linux_arm(scratch: Path, alone: str = "") -> Machine:
    """``alone``: shell commands that it runs by itself in place of the script."""
    machine = _linux("armhf", "qemu-system-arm", "linux-image-armmp-lpae", "ttyAMA0", scratch, alone)
    return replace(machine, cpu="cortex-a15")


def linux_riscv64(scratch: Path, alone: str = "") -> Machine:
    """``alone``: shell commands that it runs by itself in place of the script."""
    machine = _linux("riscv64", "qemu-system-riscv64", "linux-image-riscv64", "ttyS0", scratch, alone)
    return replace(machine, board="riscv64-virt", bios=_firmware())


MACHINES: dict[str, Callable[[Path], Machine]] = {
    "u-boot-riscv64": u_boot_riscv64,
    "u-boot-arm64": u_boot_arm64,
    "u-boot-arm": u_boot_arm,
    "linux-arm64": linux_arm64,
    "linux-arm": linux_arm,
    "linux-riscv64": linux_riscv64,
}
"""name -> what makes it in a directory for its files; raises Unavailable"""


def _short(make: Callable[[Path, str], Machine]) -> Callable[[Path], Machine]:
    return lambda scratch: replace(make(scratch, "uname -a"), memory=128)


SHORT: dict[str, Callable[[Path], Machine]] = {
    "linux-arm64 alone": _short(linux_arm64),
    "linux-riscv64 alone": _short(linux_riscv64),
}
"""the same: a boot that nobody types at"""
ASLEEP: dict[str, Callable[[Path], Machine]] = {
    "linux-arm64 asleep": lambda scratch: linux_arm64(scratch, "sleep 3600"),
    "linux-riscv64 asleep": lambda scratch: linux_riscv64(scratch, "sleep 3600"),
}
"""one that sleeps for an hour"""
