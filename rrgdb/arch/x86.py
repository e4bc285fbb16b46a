"""x86 with SSE2 and without AVX: i386 (protected mode) and x86_64 (long mode).

Sources: "Intel 64 and IA-32 Architectures Software Developer's Manual", volumes 1 and 3A; GDB manual, "i386 Features".
"""

from __future__ import annotations

from collections.abc import Iterable

from rrgdb.arch import x86_traps as traps
from rrgdb.arch.base import Arch, Feature, Register, flags_type, words
from rrgdb.arch.core_format import NT_FPREGSET, NT_PRXFPREG, CoreFormat, Field, Note, each
from rrgdb.arch.cpu import Cpu
from rrgdb.arch.system import SystemRegister, register, registers


def _bits(names: Iterable[str], places: Iterable[int]) -> Iterable[tuple[str, int, int]]:
    return ((name, at, at) for name, at in zip(names, places, strict=True))


# The nameless bit 1 is always set; GDB prints it as "".
_EFLAGS_TYPE = flags_type(
    "i386_eflags",
    _bits(
        ("CF", "", *words("PF AF ZF SF TF IF DF OF NT RF VM AC VIF VIP ID")),
        (0, 1, 2, 4, 6, 7, 8, 9, 10, 11, 14, 16, 17, 18, 19, 20, 21),
    ),
)
_MXCSR_TYPE = flags_type("i386_mxcsr", _bits(words("IE DE ZE OE UE PE DAZ IM DM ZM OM UM PM FZ"), (*range(13), 15)))
_VECTORS = (
    ("v4f", "ieee_single", 4, "v4_float"),
    ("v2d", "ieee_double", 2, "v2_double"),
    ("v16i8", "int8", 16, "v16_int8"),
    ("v8i16", "int16", 8, "v8_int16"),
    ("v4i32", "int32", 4, "v4_int32"),
    ("v2i64", "int64", 2, "v2_int64"),
)
_VECTOR_TYPES = "".join(f'<vector id="{name}" type="{lane}" count="{n}"/>' for name, lane, n, _ in _VECTORS) + (
    '<union id="vec128">{}<field name="uint128" type="uint128"/></union>'.format(
        "".join(f'<field name="{field}" type="{name}"/>' for name, _, _, field in _VECTORS)
    )
)

SEGMENTS = words("cs ss ds es fs gs")
# GDB's x87 control registers, all 32 bits wide there, and their own bits. ftag is the full tag word, a function of the
# contents: of a written tag only "empty" matters.
_X87_CONTROL = {"fctrl": 16, "fstat": 16, "ftag": 16, "fiseg": 16, "fioff": 32, "foseg": 16, "fooff": 32, "fop": 16}


def _features(bits: int) -> tuple[Feature, ...]:
    if bits == 64:
        names = (*words("rax rbx rcx rdx rsi rdi rbp rsp"), *(f"r{n}" for n in range(8, 16)))
        pc, integer = "rip", "int64"
    else:
        names = words("eax ecx edx ebx esp ebp esi edi")
        pc, integer = "eip", "int"
    pointers = {"rbp", "rsp", "ebp", "esp"}
    core = (
        *(Register(name, bits, "data_ptr" if name in pointers else integer) for name in names),
        Register(pc, bits, "code_ptr"),
        Register("eflags", 32, "i386_eflags"),
        *(Register(name, 32, "int32", width=16) for name in SEGMENTS),
        *(Register(f"st{n}", 80, "i387_ext", "float") for n in range(8)),
        *(Register(name, 32, group="float", width=width) for name, width in _X87_CONTROL.items()),
    )
    sse = (
        *(Register(f"xmm{n}", 128, "vec128", "vector") for n in range(16 if bits == 64 else 8)),
        Register("mxcsr", 32, "i386_mxcsr", "vector"),
    )
    features = (
        Feature("org.gnu.gdb.i386.core", core, _EFLAGS_TYPE),
        Feature("org.gnu.gdb.i386.sse", sse, _VECTOR_TYPES + _MXCSR_TYPE),
    )
    if bits == 32:
        return features
    bases = tuple(Register(name, 64) for name in ("fs_base", "gs_base"))
    return (*features, Feature("org.gnu.gdb.i386.segments", bases))


CONTROLS = words("cr0 cr2 cr3 cr4 dr0 dr1 dr2 dr3 dr6 dr7")
TABLES = {
    "gdtr": ("base", "limit"),
    "idtr": ("base", "limit"),
    "ldtr": ("selector", "base", "limit", "flags"),
    "tr": ("selector", "base", "limit", "flags"),
}
MSRS = {
    "sysenter_cs": 0x174,
    "sysenter_esp": 0x175,
    "sysenter_eip": 0x176,
    "efer": 0xC0000080,
    "star": 0xC0000081,
    "lstar": 0xC0000082,
    "cstar": 0xC0000083,
    "fmask": 0xC0000084,
    "kernel_gs_base": 0xC0000102,
    "tsc_aux": 0xC0000103,
}
BASE_MSRS = {"fs_base": 0xC0000100, "gs_base": 0xC0000101}


def _system_registers(bits: int) -> tuple[str, ...]:
    tables = (f"{table}_{part}" for table, parts in TABLES.items() for part in parts)
    # GDB's 32-bit description has no segment bases.
    return (*CONTROLS, *(("cr8",) if bits == 64 else ()), *tables, *MSRS, *(() if bits == 64 else BASE_MSRS))


_CONTROL_BITS = {
    "cr0": (("PE", 0), ("MP", 1), ("EM", 2), ("TS", 3), ("ET", 4), ("NE", 5), ("WP", 16), ("AM", 18), ("NW", 29),
            ("CD", 30), ("PG", 31)),
    "cr4": (("VME", 0), ("PVI", 1), ("TSD", 2), ("DE", 3), ("PSE", 4), ("PAE", 5), ("MCE", 6), ("PGE", 7), ("PCE", 8),
            ("OSFXSR", 9), ("OSXMMEXCPT", 10), ("UMIP", 11), ("LA57", 12), ("FSGSBASE", 16), ("PCIDE", 17),
            ("OSXSAVE", 18), ("SMEP", 20), ("SMAP", 21)),
    "efer": (("SCE", 0), ("LME", 8), ("LMA", 10), ("NXE", 11), ("SVME", 12)),
}  # fmt: skip


def _shown(bits: int) -> tuple[SystemRegister, ...]:
    """QEMU's names, and those of the parts of descriptor tables after the manual's."""
    bases = () if bits == 64 else registers(BASE_MSRS, 32)
    controls = tuple(register(name, bits, type=f"i386_{name}" if name in _CONTROL_BITS else None)
                     for name in words("cr0 cr2 cr3 cr4"))  # fmt: skip
    tables = tuple(
        register(f"{table}_{part}", bits if part == "base" else 32) for table, parts in TABLES.items() for part in parts
    )
    wide = (register("cr8", 64),) if bits == 64 else ()
    return (
        *controls,
        *wide,
        register("efer", bits, type="i386_efer"),
        register("k_gs_base", bits, "kernel_gs_base"),
        *bases,
        *tables,
        *registers((name for name in MSRS if name not in ("efer", "kernel_gs_base")), bits),
        *registers(words("dr0 dr1 dr2 dr3 dr6 dr7"), bits),
    )


def _shown_types(bits: int) -> str:
    return "".join(
        flags_type(f"i386_{name}", ((bit, at, at) for bit, at in fields), bits // 8)
        for name, fields in _CONTROL_BITS.items()
    )


_CR0_FLAT = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5  # PE MP ET NE
_CR4_SSE = 1 << 9 | 1 << 10  # OSFXSR OSXMMEXCPT


def _reset(cpu: Cpu, bits: int, entry: int, stack_top: int) -> None:
    cpu.write("cr0", _CR0_FLAT)
    cpu.write("cr4", cpu.read("cr4") | _CR4_SSE)
    cpu.write("fctrl", 0x37F)
    cpu.write("ftag", 0xFFFF)
    cpu.write("mxcsr", 0x1F80)
    cpu.write("eflags", 2)
    cpu.write("rsp" if bits == 64 else "esp", stack_top)
    cpu.write("rip" if bits == 64 else "eip", entry)


def _reset32(cpu: Cpu, entry: int, stack_top: int) -> None:
    """32-bit protected mode, flat, interrupts off, x87 and SSE usable. All selectors are 0 with flat descriptor caches:
    there is no GDT until the guest loads its own, as the Multiboot specification allows (section 3.2)."""
    _reset(cpu, 32, entry, stack_top)


def _reset64(cpu: Cpu, entry: int, stack_top: int) -> None:
    """64-bit mode, flat and without paging (a state that only an emulator can offer), x87 and SSE usable."""
    _reset(cpu, 64, entry, stack_top)


def _abridged_tag(cpu: Cpu) -> int:
    """FXSAVE's tag (volume 1, section 10.5.1): one bit for each x87 register that is not empty."""
    tag = cpu.read("ftag")
    return sum(1 << n for n in range(8) if tag >> 2 * n & 3 != 3)


def _fxsave(vectors: int) -> tuple[Field, ...]:
    return (
        *(("fctrl", 2), ("fstat", 2), (_abridged_tag, 1), (0, 1), ("fop", 2)),
        *(("fioff", 4), ("fiseg", 4), ("fooff", 4), ("foseg", 4), ("mxcsr", 4), (0xFFFF, 4)),
        *(field for n in range(8) for field in ((f"st{n}", 10), (0, 6))),
        *((f"xmm{n}", 16) for n in range(vectors)),
        (0, 16 * (16 - vectors) + 96),
    )


_NO_CALL = -1
"""orig_eax: not in a system call"""


def _core(bits: int) -> CoreFormat:
    if bits == 64:
        before = each(words("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi"), 8)
        behind = each(words("rip cs eflags rsp ss fs_base gs_base ds es fs gs"), 8)
        return CoreFormat(62, (*before, (_NO_CALL, 8), *behind), (Note("CORE", NT_FPREGSET, _fxsave(16)),))
    before = each(words("ebx ecx edx esi edi ebp eax ds es fs gs"), 4)
    behind = each(words("eip cs eflags esp ss"), 4)
    return CoreFormat(3, (*before, (_NO_CALL, 4), *behind), (Note("LINUX", NT_PRXFPREG, _fxsave(8)),))


def _arch(bits: int) -> Arch:
    wide = bits == 64
    system = _system_registers(bits)
    return Arch(
        name="x86_64" if wide else "i386",
        gdb_architecture="i386:x86-64" if wide else "i386",
        bits=bits,
        features=_features(bits),
        pc="rip" if wide else "eip",
        sp="rsp" if wide else "esp",
        expedite=("rip", "rsp", "rbp", "eflags", "rax") if wide else ("eip", "esp", "ebp", "eflags", "eax"),
        elf_machine="EM_X86_64" if wide else "EM_386",
        models=("qemu64", "core2duo", "nehalem") if wide else ("qemu32", "pentium3", "n270"),
        capstone_arch="CS_ARCH_X86",
        capstone_mode=(f"CS_MODE_{bits}",),
        instruction_alignment=1,
        max_instruction_length=15,
        breakpoint_kinds=(1,),
        nonsteppable_watchpoint=False,
        halt_waits_forever=True,
        classify=traps.classify64 if wide else traps.classify32,
        emulate=traps.emulate64 if wide else traps.emulate32,
        exception_signal=traps.exception_signal,
        single_step=traps.single_step,
        enter_exception=traps.enter_exception64 if wide else traps.enter_exception32,
        reset=_reset64 if wide else _reset32,
        # The stack registers of x87 are relative to the top that fstat holds.
        written_first=("fctrl", "fstat", "ftag"),
        core=_core(bits),
        system_registers=system,
        hidden_registers=traps.HIDDEN,
        shown_registers=_shown(bits),
        spins=(bytes.fromhex("ebfe"), bytes.fromhex("e9fbffffff")),
        shown_types=_shown_types(bits),
        digest_registers=system,
    )


I386 = _arch(32)
X86_64 = _arch(64)
