"""x86 with SSE2: i386 (protected mode) and x86_64 (long mode). Unicorn's CPU models have no AVX.

Sources: "Intel 64 and IA-32 Architectures Software Developer's Manual", volumes 1 and 3A; GDB manual, "i386 Features".
"""

from __future__ import annotations

from collections.abc import Iterable

from rrgdb.arch import x86_traps as traps
from rrgdb.arch.base import Arch, Cpu, Feature, Register, words


def _flags_type(name: str, bits: Iterable[tuple[str, int]]) -> str:
    fields = "".join(f'<field name="{bit}" start="{at}" end="{at}"/>' for bit, at in bits)
    return f'<flags id="{name}" size="4">{fields}</flags>'


# The nameless bit 1 is always set; GDB prints it as "".
_EFLAGS_TYPE = _flags_type(
    "i386_eflags",
    zip(
        ("CF", "", *words("PF AF ZF SF TF IF DF OF NT RF VM AC VIF VIP ID")),
        (0, 1, 2, 4, 6, 7, 8, 9, 10, 11, 14, 16, 17, 18, 19, 20, 21),
        strict=True,
    ),
)
_MXCSR_TYPE = _flags_type(
    "i386_mxcsr",
    zip(words("IE DE ZE OE UE PE DAZ IM DM ZM OM UM PM FZ"), (*range(13), 15), strict=True),
)
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

_SEGMENTS = words("cs ss ds es fs gs")
# GDB's x87 control registers, all 32 bits wide there. ftag is the full tag word, which the engine computes from the
# contents: of a written tag only "empty" matters.
_X87_CONTROL = (
    ("fctrl", "FPCW", 16),
    ("fstat", "FPSW", 16),
    ("ftag", "FPTAG", 16),
    ("fiseg", "FCS", 16),
    ("fioff", "FIP", 32),
    ("foseg", "FDS", 16),
    ("fooff", "FDP", 32),
    ("fop", "FOP", 16),
)


def _features(bits: int) -> tuple[Feature, ...]:
    if bits == 64:
        names = (*words("rax rbx rcx rdx rsi rdi rbp rsp"), *(f"r{n}" for n in range(8, 16)))
        pc, integer = "rip", "int64"
    else:
        names = words("eax ecx edx ebx esp ebp esi edi")
        pc, integer = "eip", "int"
    pointers = {"rbp", "rsp", "ebp", "esp"}
    core = (
        *(
            Register(name, bits, f"X86_REG_{name.upper()}", "data_ptr" if name in pointers else integer)
            for name in names
        ),
        Register(pc, bits, f"X86_REG_{pc.upper()}", "code_ptr"),
        Register("eflags", 32, "X86_REG_EFLAGS", "i386_eflags"),
        *(Register(name, 32, f"X86_REG_{name.upper()}", "int32", engine_bits=16) for name in _SEGMENTS),
        *(Register(f"st{n}", 80, f"X86_REG_ST{n}", "i387_ext", "float") for n in range(8)),
        *(
            Register(name, 32, f"X86_REG_{engine}", group="float", engine_bits=width)
            for name, engine, width in _X87_CONTROL
        ),
    )
    sse = (
        *(Register(f"xmm{n}", 128, f"X86_REG_XMM{n}", "vec128", "vector") for n in range(16 if bits == 64 else 8)),
        Register("mxcsr", 32, "X86_REG_MXCSR", "i386_mxcsr", "vector"),
    )
    features = (
        Feature("org.gnu.gdb.i386.core", core, _EFLAGS_TYPE),
        Feature("org.gnu.gdb.i386.sse", sse, _VECTOR_TYPES + _MXCSR_TYPE),
    )
    if bits == 32:
        return features
    bases = tuple(Register(name, 64, f"X86_REG_{name.upper()}") for name in ("fs_base", "gs_base"))
    return (*features, Feature("org.gnu.gdb.i386.segments", bases))


_MSRS = {
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
_BASE_MSRS = {"fs_base": 0xC0000100, "gs_base": 0xC0000101}


def _system_registers(bits: int) -> dict[str, str]:
    plain = words("cr0 cr2 cr3 cr4 dr0 dr1 dr2 dr3 dr6 dr7") + (("cr8",) if bits == 64 else ())
    tables = {
        f"{table}_{part}": f"X86_REG_{table.upper()}.{part}"
        for table, parts in (
            ("gdtr", ("base", "limit")),
            ("idtr", ("base", "limit")),
            ("ldtr", ("selector", "base", "limit", "flags")),
            ("tr", ("selector", "base", "limit", "flags")),
        )
        for part in parts
    }
    # GDB's 32-bit description has no segment bases, and 32-bit engines answer for them by MSR only.
    msrs = _MSRS if bits == 64 else _MSRS | _BASE_MSRS
    return (
        {name: f"X86_REG_{name.upper()}" for name in plain}
        | tables
        | {name: f"X86_REG_MSR({number:#x})" for name, number in msrs.items()}
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
        expedite=("rip", "rsp", "rbp", "eflags") if wide else ("eip", "esp", "ebp", "eflags"),
        elf_machine="EM_X86_64" if wide else "EM_386",
        engine_arch="UC_ARCH_X86",
        engine_mode=f"UC_MODE_{bits}",
        engine_models={
            "qemu64": "UC_CPU_X86_QEMU64",
            "core2duo": "UC_CPU_X86_CORE2DUO",
            "nehalem": "UC_CPU_X86_NEHALEM",
        }
        if wide
        else {"qemu32": "UC_CPU_X86_QEMU32", "pentium3": "UC_CPU_X86_PENTIUM3", "n270": "UC_CPU_X86_N270"},
        capstone_arch="CS_ARCH_X86",
        capstone_mode=(f"CS_MODE_{bits}",),
        instruction_alignment=1,
        max_instruction_length=15,
        breakpoint_kinds=(1,),
        nonsteppable_watchpoint=False,
        precise_smc=True,
        halt_waits_forever=True,
        trap_prefilter=(),
        classify=traps.classify64 if wide else traps.classify32,
        emulate=traps.emulate64 if wide else traps.emulate32,
        exception_signal=traps.exception_signal,
        single_step=traps.single_step,
        enter_exception=traps.enter_exception64 if wide else traps.enter_exception32,
        reset=_reset64 if wide else _reset32,
        system_registers=system,
        hidden_registers=traps.HIDDEN,
        digest_registers=tuple(system),
    )


I386 = _arch(32)
X86_64 = _arch(64)
