#!/bin/bash
# unicorn 2.1.4 (PyPI): a loop that is a single basic block and stores over its own first instruction in the fifth of ten rounds.
# A guess: from the sixth round on it executes the new instruction, `add 5` for `add 1`: 5 * 1 + 5 * 5 = 30.
# Really: so on x86 only. RISC-V, AArch64, Arm, PowerPC, MIPS, s390x and m68k go on with the old one until the loop is left, 10:
# the translation is dropped, but not its jump to itself. A run that is stopped in between (count, emu_stop) and started again
# executes the new one from there: 22 if stopped behind round 7, 30 behind every round. Hooks (code, block, memory) make no
# difference. RISC-V and AArch64 ask for barriers here, and with one in the loop it is two blocks, and 30; but s390x asks for
# none, nor does a 68000, which has no cache. QEMU 7.2 gives 30 on RISC-V and AArch64 without barriers.
# For emulators: where runs are stopped changes what they compute. Stop when a block that begins again has other bytes.
set -u
T=$(mktemp -d) && trap 'rm -rf "$T"' EXIT || exit 2
python3 -m venv "$T/v" && timeout 100 "$T/v/bin/pip" install -q --disable-pip-version-check unicorn==2.1.4 >"$T/log" 2>&1 ||
    { echo "could not be tried: $(tail -1 "$T/log")"; exit 2; }
timeout 15 "$T/v/bin/python" - <<'PY'
from unicorn import UC_ARCH_ARM64, UC_ARCH_M68K, UC_ARCH_RISCV, UC_ARCH_S390X, UC_ARCH_X86
from unicorn import UC_MODE_64, UC_MODE_ARM, UC_MODE_BIG_ENDIAN, UC_MODE_RISCV64, Uc
from unicorn import arm64_const as a, m68k_const as m, riscv_const as r, s390x_const as s, x86_const as x

LOOP = 0x10800
RISCV = ("13051500 23a0f500 93850504 1306f6ff",  # addi a0, a0, 1; sw a5, (a1); addi a1, a1, 64; addi a2, a2, -1
         (UC_ARCH_RISCV, UC_MODE_RISCV64), None, 0x00550513,
         (r.UC_RISCV_REG_A0, r.UC_RISCV_REG_A1, r.UC_RISCV_REG_A2, r.UC_RISCV_REG_A5, r.UC_RISCV_REG_PC))
# name: (code, its length, architecture and mode, CPU model, what is stored, registers: sum, pointer, rounds, value, pc)
CASES = {
    "riscv64": (RISCV[0] + "e31806fe", 5, *RISCV[1:]),  # bnez a2, loop
    "riscv64 with FENCE.I": (RISCV[0] + "0f100000 e31606fe", 6, *RISCV[1:]),
    "aarch64": ("00040091 250404b8 420400f1 a1ffff54",  # add x0, x0, #1; str w5, [x1], #64; subs x2, x2, #1; b.ne loop
                4, (UC_ARCH_ARM64, UC_MODE_ARM), None, 0x91001400,
                (a.UC_ARM64_REG_X0, a.UC_ARM64_REG_X1, a.UC_ARM64_REG_X2, a.UC_ARM64_REG_X5, a.UC_ARM64_REG_PC)),
    "s390x": ("a72a0001 50504000 a74a0040 a73affff a774fff8",  # ahi 2,1; st 5,0(4); ahi 4,64; ahi 3,-1; jne loop
              5, (UC_ARCH_S390X, UC_MODE_BIG_ENDIAN), None, 0xA72A0005,
              (s.UC_S390X_REG_R2, s.UC_S390X_REG_R4, s.UC_S390X_REG_R3, s.UC_S390X_REG_R5, s.UC_S390X_REG_PC)),
    "68000": ("5280 3081 41e80040 5382 66f4",  # addq.l #1,d0; move.w d1,(a0); lea 64(a0),a0; subq.l #1,d2; bne.s loop
              5, (UC_ARCH_M68K, UC_MODE_BIG_ENDIAN), m.UC_CPU_M68K_M68000, 0x5A80,
              (m.UC_M68K_REG_D0, m.UC_M68K_REG_A0, m.UC_M68K_REG_D2, m.UC_M68K_REG_D1, m.UC_M68K_REG_PC)),
    "x86-64": ("83c001 892f 83c740 ffc9 75f4",  # add eax, 1; mov [rdi], ebp; add edi, 64; dec ecx; jne loop
               5, (UC_ARCH_X86, UC_MODE_64), None, 0x8905C083,
               (x.UC_X86_REG_RAX, x.UC_X86_REG_RDI, x.UC_X86_REG_RCX, x.UC_X86_REG_RBP, x.UC_X86_REG_RIP)),
}  # fmt: skip


def run(code, length, mode, model, stored, registers, rounds):
    """The sum; run by so many rounds at a time, or without a count."""
    total, pointer, left, value, pc = registers
    code = bytes.fromhex(code)
    uc = Uc(*mode)
    if model is not None:
        uc.ctl_set_cpu_model(model)
    uc.mem_map(0x10000, 0x2000)
    uc.mem_write(LOOP, code)
    for register, number in ((total, 0), (pointer, LOOP - 4 * 64), (left, 10), (value, stored), (pc, LOOP)):
        uc.reg_write(register, number)
    for part in rounds:
        uc.emu_start(uc.reg_read(pc), LOOP + len(code), count=part * length)
    return uc.reg_read(total)


WAYS = {"in one": (0,), "stopped behind round 7": (7, 3), "stopped behind every round": (1,) * 10}
found = {name: [run(*case, rounds) for rounds in WAYS.values()] for name, case in CASES.items()}
right = {name: [30, 30, 30] if name in ("x86-64", "riscv64 with FENCE.I") else [10, 22, 30] for name in CASES}
print("observed: sums of runs", ", ".join(WAYS) + ":", found)
print("expected: sums of runs", ", ".join(WAYS) + ":", right)
if found == right:
    raise SystemExit(0)
print("changed: what such a loop executes behind its store")
raise SystemExit(1)
PY
