"""QEMU 7.2's options, as data: what becomes of each.

A row's ``fate`` says how its value is used. ``SAME`` and ``MAPPED`` are rewritten to an option of rrgdb (``to``),
``NOTHING`` is dropped once ``accepts`` matches all of its value, ``REFUSED`` is an error with ``note`` as its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Fate(Enum):
    SAME = "taken as it is"
    MAPPED = "mapped to an option of rrgdb"
    NOTHING = "accepted, and without effect"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class QemuOption:
    """``name``: without dashes, ``also``: other names of it; ``value``: how the documentation names it, empty: it takes
    none. ``to``: rrgdb's option. ``accepts``: a regular expression for a value that changes nothing."""

    name: str
    value: str
    fate: Fate
    note: str
    to: str = ""
    accepts: str = ""
    also: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.also)

    @property
    def usage(self) -> str:
        """As the documentation shows it."""
        return " or ".join(f"-{name}" for name in self.names) + (f" {self.value}" if self.value else "")


def _same(name: str, value: str, note: str, to: str = "", also: tuple[str, ...] = ()) -> QemuOption:
    return QemuOption(name, value, Fate.SAME, note, to or f"--{name}", also=also)


def _mapped(name: str, value: str, note: str, to: str) -> QemuOption:
    return QemuOption(name, value, Fate.MAPPED, note, to)


def _nothing(name: str, value: str, note: str, accepts: str = "") -> QemuOption:
    return QemuOption(name, value, Fate.NOTHING, note, accepts=accepts)


def _refused(reason: str, *names: str, value: str = "") -> list[QemuOption]:
    return [QemuOption(name, value, Fate.REFUSED, reason) for name in names]


_ONE_CPU = r"(cpus=)?1(,(maxcpus|sockets|dies|clusters|cores|threads)=1)*"
_PLUGS = "the boards have no PCI and no USB: the virtio devices of `-device` are what can be plugged in"
_SHOWS = "there is no display: `-nographic` or `-display none`"
_CONTROLS = "the monitor is gdb's: `monitor help`, or Ctrl-A c under `-serial mon:stdio`"
_NO_NETWORK = "the boards have no network yet: `-nic none`"

OPTIONS: tuple[QemuOption, ...] = (
    _same(
        "machine",
        "NAME[,KEY=VALUE…]",
        "a board of rrgdb, or `virt`: the virt board of the CPU that the image is for, or of `-cpu`",
        also=("M",),
    ),
    _same("cpu", "MODEL", "a model of the board's CPU, see `rrgdb machines`"),
    _same("m", "[size=]SIZE", "RAM; without a suffix MiB", "--memory"),
    _same("kernel", "FILE", "there is no IMAGE argument then"),
    _same("initrd", "FILE", "needs `-kernel`"),
    _same("append", "TEXT", "the kernel's command line; needs `-kernel`"),
    _same("dtb", "FILE", "a device tree in place of the board's"),
    _same("bios", "FILE|none", "firmware; there is no IMAGE argument then"),
    _same("device", "DRIVER[,KEY=VALUE…]", "`loader`, `virtio-blk-device`, `virtio-rng-device`"),
    _same("drive", "file=FILE,if=none,id=ID[,…]", "the image of a `virtio-blk-device`; FILE is never written"),
    _same("global", "virtio-mmio.force-legacy=on|off", "off: the virtio slots are of version 2, not of version 1"),
    _same("serial", "BACKEND", "the nth one goes to the board's nth serial port; the boards have one"),
    _same("chardev", "BACKEND,id=ID[,…]", "for `-serial chardev:ID`: stdio, null, file, socket, pty"),
    _same("icount", "[shift=]N|auto[,sleep=on|off]", "auto is shift=3; without the option it is shift=0"),
    _same("no-reboot", "", "a guest that resets the machine ends"),
    _mapped("gdb", "tcp:[HOST]:PORT", "without HOST it is 127.0.0.1 alone, which for QEMU is any address", "--gdb"),
    _mapped("s", "", "as QEMU's, but on 127.0.0.1 alone", "--gdb :1234"),
    _mapped("help", "", "rrgdb's own", "--help"),
    _mapped("nographic", "", "unless `-serial` says otherwise", "--serial mon:stdio"),
    _nothing("S", "", "`rrgdb run` waits for a debugger unless it is told `-c`"),
    _nothing("accel", "tcg[,…]", "a CPU of the host would not be exact", r"tcg(,(thread=single|tb-size=\d+))*"),
    _nothing("smp", "1", "the boards have one CPU", _ONE_CPU),
    _nothing("display", "none", _SHOWS, "none"),
    _nothing("vga", "none", _SHOWS, "none"),
    _nothing("monitor", "none|null", _CONTROLS, "none|null"),
    _nothing("parallel", "none|null", "the boards have no parallel port", "none|null"),
    _nothing("net", "none", _NO_NETWORK, "none"),
    _nothing("nic", "none", _NO_NETWORK, "none"),
    _nothing("audio", "none", "the boards have no sound", "none|driver=none"),
    _nothing(
        "rtc",
        "[base=utc][,clock=host]",
        "the clocks show the host's time (UTC), which the recording keeps",
        r"(base=utc|clock=host|driftfix=none)(,(base=utc|clock=host|driftfix=none))*",
    ),
    _nothing(
        "object",
        "rng-random|rng-builtin,id=ID[,…]",
        "random bytes come from the host, and the recording keeps them",
        r"(qom-type=)?rng-(random|builtin),.*",
    ),
    _nothing("semihosting", "", "it is always there"),
    _nothing(
        "semihosting-config",
        "enable=on[,target=native|auto]",
        "it is always there, and rrgdb serves it",
        r"(enable=)?on(,target=(native|auto))?",
    ),
    _nothing("snapshot", "", "images of disks are never written"),
    _nothing("name", "NAME", "a recording is named by its directory (`-o`)", ".*"),
    _nothing("nodefaults", "", "there is nothing that it would leave out"),
    _nothing("no-user-config", "", "there is none"),
    _nothing("no-acpi", "", "there is none"),
    _nothing("mem-prealloc", "", "how the host keeps RAM is nothing that a guest can tell"),
    _nothing("overcommit", "…", "how the host keeps RAM is nothing that a guest can tell", ".*"),
    _nothing("msg", "…", "how QEMU writes its messages", ".*"),
    *_refused("KVM's CPU is not exact: `-accel tcg`", "enable-kvm"),
    *_refused("Xen's CPU is not exact: `-accel tcg`", "xen-attach"),
    *_refused("Xen's CPU is not exact: `-accel tcg`", "xen-domid", value="N"),
    *_refused(
        "a recording ends with its guest; in gdb one goes back from there, with and without this", "no-shutdown"
    ),
    *_refused("a reset restarts the guest, or ends it with `-no-reboot`; no other action can be had", "action",
              value="…"),
    *_refused(_PLUGS, "usb"),
    *_refused(_PLUGS, "usbdevice", value="…"),
    *_refused(
        "the boards have no such drive: `-drive file=FILE,if=none,id=x -device virtio-blk-device,drive=x`, or `--disk`",
        "hda", "hdb", "hdc", "hdd", "cdrom", "fda", "fdb", "sd", "mtdblock", value="FILE",
    ),
    *_refused("firmware comes by `-bios FILE`", "pflash", value="FILE"),
    *_refused("images of disks come by `-drive` or `--disk`", "blockdev", "iscsi", "add-fd", "set", value="…"),
    *_refused(_NO_NETWORK, "netdev", value="…"),
    *_refused("the guest sees no files of the host but those of semihosting", "virtfs", "fsdev", value="…"),
    *_refused(_SHOWS, "sdl", "gtk", "full-screen", "portrait"),
    *_refused(_SHOWS, "vnc", "spice", "k", "rotate", value="…"),
    *_refused("the boards have no sound", "audiodev", "soundhw", value="…"),
    *_refused(_CONTROLS, "qmp", "qmp-pretty", "mon", value="…"),
    *_refused("the boards have no debug console: `-serial`", "debugcon", value="…"),
    *_refused("start it in the background by the shell's means", "daemonize"),
    *_refused("start it in the background by the shell's means", "pidfile", "runas", "chroot", "sandbox", value="…"),
    *_refused(
        "`monitor seek` and `monitor loadvm` go to a snapshot, of any recording",
        "loadvm", "incoming", "only-migratable", "dump-vmstate", value="…",
    ),
    *_refused("`monitor history` and gdb tell what ran, and when", "d", "D", "dfilter", "trace", "plugin", value="…"),
    *_refused("every instruction is exact as it is", "singlestep"),
    *_refused("a recording has random numbers of its own", "seed", value="N"),
    *_refused("a board's firmware tables are the board's", "fw_cfg", "acpitable", "smbios", "option-rom", "uuid",
              value="…"),
    *_refused("the boards boot what `-kernel` or `-bios` names", "boot", value="…"),
    *_refused("the boards have no TPM", "tpmdev", value="…"),
    *_refused("the boards have no watchdog", "watchdog", "watchdog-action", value="…"),
    *_refused("the boards have one CPU, and its memory in one piece", "numa", value="…"),
    *_refused("RAM is rrgdb's own", "mem-path", value="FILE"),
    *_refused("files are found where they are named", "L", value="DIR"),
    *_refused("options come on the command line alone", "readconfig", "compat", value="…"),
    *_refused("Ctrl-A is the character", "echr", value="N"),
    *_refused("kernels get their parameters by `-append`", "old-param"),
    *_refused("of QEMU's own workings", "preconfig", "async-teardown", "enable-sync-profile"),
)  # fmt: skip
BY_NAME: dict[str, QemuOption] = {name: option for option in OPTIONS for name in option.names}
