"""Guest programs for the tests, built from the sources beside this file with Debian's cross compilers."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
LIBC = SOURCES / "libc"
SHORT = SOURCES / "short"
KERNEL = SOURCES / "kernel"

_COMMON = (
    "-g",
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-fno-pic",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",
    "-fno-tree-loop-distribute-patterns",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-static",
)
_LINK = ("-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,max-page-size=4096")


@dataclass(frozen=True)
class Toolchain:
    """How to build for one family. ``load`` is the address of the image; ``package`` Debian's name of the compiler."""

    compiler: str
    package: str
    flags: tuple[str, ...]
    start: str
    load: int
    picolibc: bool
    """Debian has picolibc for it: programs can be built with a whole C library that talks by semihosting"""


_ARM = ("-mcpu=cortex-a15", "-mfpu=neon-vfpv4", "-mfloat-abi=hard", "-mno-unaligned-access", "-masm-syntax-unified")
# Tuned for the Cortex-A15, Thumb functions end in "add sp; pop {.., pc}", and of the addition GCC 12 says nothing in
# .debug_frame: at the pop GDB finds no caller, so that its reverse-next over a call ends in the callee.
_THUMB = ("-mthumb", *_ARM, "-mtune=cortex-a9")

TOOLCHAINS: Mapping[str, Toolchain] = {
    "riscv64": Toolchain(
        "riscv64-unknown-elf-gcc",
        "gcc-riscv64-unknown-elf",
        ("-march=rv64imafdc", "-misa-spec=2.2", "-mabi=lp64d", "-mcmodel=medany", "-msmall-data-limit=0"),
        "riscv.S",
        0x80000000,
        True,
    ),
    "riscv32": Toolchain(
        "riscv64-unknown-elf-gcc",
        "gcc-riscv64-unknown-elf",
        ("-march=rv32imafc", "-misa-spec=2.2", "-mabi=ilp32f", "-mcmodel=medany", "-msmall-data-limit=0"),
        "riscv.S",
        0x80000000,
        True,
    ),
    "aarch64": Toolchain(
        "aarch64-linux-gnu-gcc",
        "gcc-aarch64-linux-gnu",
        ("-march=armv8-a", "-mstrict-align", "-mno-outline-atomics", "-fno-pie", "-no-pie"),
        "aarch64.S",
        0x40000000,
        True,
    ),
    "arm": Toolchain("arm-none-eabi-gcc", "gcc-arm-none-eabi", ("-marm", *_ARM), "arm.S", 0x40000000, True),
    "thumb": Toolchain("arm-none-eabi-gcc", "gcc-arm-none-eabi", _THUMB, "arm.S", 0x40000000, False),
    "i386": Toolchain(
        "i686-linux-gnu-gcc",
        "gcc-i686-linux-gnu",
        ("-march=i686", "-fcf-protection=none", "-fno-pie", "-no-pie"),
        "i386.S",
        0x100000,
        False,
    ),
    "x86_64": Toolchain(
        "x86_64-linux-gnu-gcc",
        "gcc-x86-64-linux-gnu (gcc on amd64)",
        ("-mno-red-zone", "-mcmodel=small", "-fcf-protection=none", "-fno-pie", "-no-pie"),
        "x86_64.S",
        0x100000,
        False,
    ),
}
ARCHES = tuple(TOOLCHAINS)
"""the families that guests are built for; Arm's two instruction sets count as one each"""


def arch_name(family: str) -> str:
    """rrgdb's name of the arch that runs a guest built for ``family``."""
    return "arm" if family == "thumb" else family


AWKWARD: Mapping[str, tuple[str, ...]] = {
    "riscv64": ("riscv_atomic", "riscv_trap", "riscv_fp", "riscv_code"),
    "riscv32": ("riscv_atomic", "riscv_trap", "riscv_fp", "riscv_code"),
    "aarch64": ("aarch64_atomic", "aarch64_trap", "aarch64_fp", "aarch64_code"),
    "arm": ("arm_atomic", "arm_trap", "arm_fp", "arm_code", "arm_it"),
    "thumb": ("arm_atomic", "arm_trap", "arm_fp", "arm_code", "arm_it"),
    "i386": ("x86_string", "x86_lock", "x86_code", "x86_fp", "x86_trap"),
    "x86_64": ("x86_string", "x86_lock", "x86_code", "x86_fp", "x86_trap"),
}
"""Programs of instructions that are hard to count or to repeat; each prints one checksum and powers off."""

CHECKSUMS: Mapping[tuple[str, str], int] = {
    ("riscv64", "riscv_atomic"): 0x35822A91,
    ("riscv64", "riscv_trap"): 0xAE7E6860,
    ("riscv64", "riscv_fp"): 0x36905C80,
    ("riscv64", "riscv_code"): 0x5991696F,
    ("riscv32", "riscv_atomic"): 0x0FC28127,
    ("riscv32", "riscv_trap"): 0xAE7E6860,
    ("riscv32", "riscv_fp"): 0x25BF5893,
    ("riscv32", "riscv_code"): 0x5991696F,
    ("aarch64", "aarch64_atomic"): 0xB5F368BD,
    ("aarch64", "aarch64_trap"): 0x5D112BC5,
    ("aarch64", "aarch64_fp"): 0xCFF8B8B1,
    ("aarch64", "aarch64_code"): 0xDCE4EFF1,
    **{
        (family, name): value
        for family in ("arm", "thumb")
        for name, value in (
            ("arm_atomic", 0x64954F33),
            ("arm_trap", 0x3C84FB4A),
            ("arm_fp", 0x84185C8F),
            ("arm_code", 0xF752EB0E),
        )
    },
    ("arm", "arm_it"): 0x0B001151,
    ("thumb", "arm_it"): 0xBF86A663,
    ("i386", "x86_string"): 0x48DDECD8,
    ("i386", "x86_lock"): 0xDC944315,
    ("i386", "x86_code"): 0xCFB643F3,
    ("i386", "x86_fp"): 0x05F38082,
    ("i386", "x86_trap"): 0xA20CDE1E,
    ("x86_64", "x86_string"): 0x48DDECD8,
    ("x86_64", "x86_lock"): 0xDC944315,
    ("x86_64", "x86_code"): 0xCFB643F3,
    ("x86_64", "x86_fp"): 0x7BD54C24,
    ("x86_64", "x86_trap"): 0xA20CDE1E,
}
"""What AWKWARD prints on QEMU 7.2, and for x86_64 on a real CPU (its x86_trap: as on i386)."""

SHORTS: Mapping[str, tuple[str, ...]] = {
    "riscv64": ("riscv_pmp", "riscv_status", "riscv_box", "riscv_mmu", "riscv_trampoline"),
    "riscv32": ("riscv_pmp", "riscv_status", "riscv_box", "riscv_mmu", "riscv_trampoline"),
    "aarch64": ("aarch64_mmu",),
    "arm": ("arm_mmu", "arm_spaces"),
    "thumb": ("arm_mmu", "arm_spaces"),
    "i386": ("x86_mode",),
    "x86_64": ("x86_long",),
}
"""Programs of a few hundred instructions that change the CPU's modes; each ends in a loop of its own."""

KERNELS: Mapping[str, tuple[str, ...]] = {
    "riscv64": ("riscv.S", "riscv.c"),
    "riscv32": ("riscv.S", "riscv.c"),
    "aarch64": ("aarch64.S", "aarch64.c", "arm_devices.c"),
    "arm": ("arm.S", "arm.c", "arm_devices.c"),
}
"""The families that the preemptive kernel is built for, and its sources beside kernel.c and user.c."""

_EXTRA_FLAGS: Mapping[str, tuple[str, ...]] = {"x86_fp": ("-msse2",)}


def exit_status(arch: str, status: int) -> int:
    """The exit status of rrgdb when the guest calls ``power_off(status)``: isa-debug-exit makes it 2 n + 1."""
    return 2 * status + 1 if arch in {"i386", "x86_64"} else status


class GuestBuildError(Exception):
    """The guest cannot be built; the text says which compiler failed and how."""


def cache_directory() -> Path:
    """Where built guests are kept: ``RRGDB_GUESTS`` or ``guests-build`` at the root of the checkout."""
    return Path(os.environ.get("RRGDB_GUESTS") or SOURCES.parents[1] / "guests-build")


def line_of(name: str, text: str) -> int:
    """Number of the one line of guest ``name``'s source that contains ``text``."""
    source = (SOURCES / f"{name}.c").read_text().splitlines()
    lines = [number for number, line in enumerate(source, 1) if text in line]
    if len(lines) != 1:
        raise ValueError(f"{name}.c: {text!r} is on {len(lines)} lines, expected one")
    return lines[0]


def command(
    arch: str, name: str, defines: Mapping[str, int], optimise: str, library: str, flags: Sequence[str] = ()
) -> list[str]:
    """The compiler's command line without its ``-o``."""
    chain = TOOLCHAINS[arch]
    macros = [f"-D{key}={value}" for key, value in sorted(defines.items())]
    extra = _EXTRA_FLAGS.get(name, ())
    base = [chain.compiler, *_COMMON, optimise, *chain.flags, *extra, *flags, *macros]
    source = str(SOURCES / f"{name}.c")
    if library == "picolibc":
        # No -ffreestanding: picolibc's headers are those of a hosted C.
        base = [flag for flag in base if flag != "-ffreestanding"]
        regions = {"__flash": 0, "__flash_size": 0x100000, "__ram": 0x100000, "__ram_size": 0x100000}
        symbols = [
            f"-Wl,--defsym={key}={value if 'size' in key else chain.load + value:#x}" for key, value in regions.items()
        ]
        hosted = ["--specs=picolibc.specs", "--oslib=semihost", "--crt0=semihost"]
        return [*base, *hosted, *symbols, *_LINK, source]
    link = [
        "-nostdlib",
        "-nostartfiles",
        *_LINK,
        f"-Wl,-T,{LIBC / 'guest.ld'}",
        f"-Wl,--defsym=__load_address={chain.load:#x}",
    ]
    include = ["-nostdinc", "-isystem", str(LIBC / "include"), "-I", str(LIBC)]
    ask = [chain.compiler, "-print-file-name=include"]
    include += ["-isystem", subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()]
    return [*base, *include, *link, str(LIBC / chain.start), str(LIBC / "libc.c"), source, "-lgcc"]


def build(
    arch: str,
    name: str,
    defines: Mapping[str, int] | None = None,
    optimise: str = "-O1",
    library: str = "small",
    flags: Sequence[str] = (),
) -> Path:
    """Build guest ``name`` for ``arch`` and return its ELF file; an unchanged one is taken from the cache.

    ``defines`` are preprocessor macros. ``library`` is ``small`` (libc/) or ``picolibc``. ``flags`` come after the
    family's own. Raises ``GuestBuildError``.
    """
    chain = TOOLCHAINS[arch]
    if library not in {"small", "picolibc"} or (library == "picolibc" and not chain.picolibc):
        raise ValueError(f"no library {library!r} for {arch}")
    if shutil.which(chain.compiler) is None:
        raise GuestBuildError(f"{chain.compiler} is not installed (Debian package {chain.package}); run scripts/test")
    line = command(arch, name, defines or {}, optimise, library, flags)
    digest = hashlib.sha256("\0".join(line).encode())
    for path in sorted([SOURCES / f"{name}.c", *(p for p in LIBC.rglob("*") if p.is_file())]):
        digest.update(path.read_bytes())
    return _made(arch, name, line, digest)


def build_short(arch: str, name: str) -> Path:
    """Build one of ``SHORTS``, as ``build`` does: alone, at the beginning of RAM. Raises ``GuestBuildError``."""
    chain = TOOLCHAINS[arch]
    extra = ["-march=rv32imafdc", "-mabi=ilp32d"] if arch == "riscv32" else []
    link = ["-nostdlib", "-nostartfiles", *_LINK, "-Wl,-n", f"-Wl,-Ttext={chain.load:#x}"]
    line = [chain.compiler, *chain.flags, *extra, *link, "-include", str(SHORT / "start.h"), str(SHORT / f"{name}.S")]
    digest = hashlib.sha256("\0".join(line).encode())
    for path in (SHORT / "start.h", SHORT / f"{name}.S"):
        digest.update(path.read_bytes())
    return _made(arch, name, line, digest)


def build_kernel(arch: str, defines: Mapping[str, int] | None = None) -> Path:
    """Build the preemptive kernel, as ``build`` does. ``defines``: see the beginning of kernel/kernel.h.

    Raises ``GuestBuildError``.
    """
    chain = TOOLCHAINS[arch]
    macros = [f"-D{key}={value}" for key, value in sorted((defines or {}).items())]
    # Registers of the FPU belong to nobody, and tables of jumps would lie where threads cannot read.
    family = ["-mgeneral-regs-only"] if arch == "aarch64" else ["-Wl,--no-relax"] if arch.startswith("riscv") else []
    link = ["-nostdlib", "-nostartfiles", *_LINK, "-Wl,--no-warn-rwx-segments", f"-Wl,-T,{KERNEL / 'kernel.ld'}"]
    link.append(f"-Wl,--defsym=__load_address={chain.load:#x}")
    sources = [str(KERNEL / name) for name in (*KERNELS[arch], "kernel.c", "user.c")]
    line = [chain.compiler, *_COMMON, "-O1", "-fno-jump-tables", *chain.flags, *family, *link, *macros, *sources]
    line.append("-lgcc")
    digest = hashlib.sha256("\0".join(line).encode())
    for path in sorted(KERNEL.iterdir()):
        digest.update(path.read_bytes())
    return _made(arch, "kernel", line, digest)


def _made(arch: str, name: str, line: Sequence[str], digest: hashlib._Hash) -> Path:
    """The ELF file that a compiler's command line makes, or made before."""
    target = cache_directory() / f"{arch}-{name}-{digest.hexdigest()[:16]}" / f"{name}.elf"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_suffix(f".{os.getpid()}.tmp")
    run = subprocess.run([*line, "-o", str(scratch)], capture_output=True, text=True, check=False)
    if run.returncode:
        raise GuestBuildError(f"building {name} for {arch} failed: {' '.join(line)}\n{run.stderr}")
    scratch.replace(target)
    return target
