#!/bin/bash
# unicorn 2.1.4 (PyPI), RISC-V 64 and 32 with D: single-precision values in 64-bit registers.
# A guess: every result in single precision has ones in its upper half (NaN-boxing), and an operand without them counts as
# the canonical NaN; or no instruction boxes.
# Really: FLW and FSGNJ.S of boxed operands give boxed values, FADD.S, FMV.W.X, FCVT.S.W and FMADD.S zeros above; an operand
# that is not boxed is taken for its lower half. QEMU 7.2 and Spike box, and take the NaN.
# For emulators on Unicorn: FSD, FMV.X.D and double-precision instructions behind single-precision ones see other values
# than on hardware; so do debuggers, which show such registers as doubles.
set -u
T=$(mktemp -d) && trap 'rm -rf "$T"' EXIT || exit 2
python3 -m venv "$T/v" && timeout 100 "$T/v/bin/pip" install -q --disable-pip-version-check unicorn==2.1.4 >"$T/log" 2>&1 ||
    { echo "could not be tried: $(tail -1 "$T/log")"; exit 2; }
timeout 20 "$T/v/bin/python" - <<'PY'
from unicorn import UC_ARCH_RISCV, UC_MODE_RISCV32, UC_MODE_RISCV64, Uc
from unicorn import riscv_const as r

WORDS = (0x00012087,  # flw ft1, 0(sp)
         0x0010F153,  # fadd.s ft2, ft1, ft1
         0xF00501D3,  # fmv.w.x ft3, a0
         0xD0057253,  # fcvt.s.w ft4, a0
         0x201080D3,  # fsgnj.s ft1, ft1, ft1
         0x0062F2D3)  # fadd.s ft5, ft5, ft6: ft5 is not boxed


def run(mode, model):
    uc = Uc(UC_ARCH_RISCV, mode)
    uc.ctl_set_cpu_model(model)
    uc.mem_map(0x10000, 0x2000)
    uc.mem_write(0x10000, b"".join(w.to_bytes(4, "little") for w in WORDS))
    uc.mem_write(0x11000, (0x3F800000).to_bytes(4, "little"))
    uc.reg_write(r.UC_RISCV_REG_MSTATUS, 1 << 13)
    uc.reg_write(r.UC_RISCV_REG_SP, 0x11000)
    uc.reg_write(r.UC_RISCV_REG_A0, 1)
    uc.reg_write(r.UC_RISCV_REG_F5, 0x000000003F800000)
    uc.reg_write(r.UC_RISCV_REG_F6, 0xFFFFFFFF3F800000)
    uc.emu_start(0x10000, 0x10000 + 4 * len(WORDS))
    return [uc.reg_read(r.UC_RISCV_REG_F0 + n) for n in range(1, 6)]


found = {64: run(UC_MODE_RISCV64, r.UC_CPU_RISCV64_SIFIVE_U54), 32: run(UC_MODE_RISCV32, r.UC_CPU_RISCV32_SIFIVE_U34)}
print("observed:", "; ".join(f"rv{x} ft1 to ft5 {' '.join(f'{v:016x}' for v in values)}" for x, values in found.items()))
right = [0xFFFFFFFF3F800000, 0x40000000, 1, 0x3F800000, 0x40000000]
print("expected:", " ".join(f"{v:016x}" for v in right), "on both")
if all(values == right for values in found.values()):
    raise SystemExit(0)
print("changed: single-precision results are boxed otherwise")
raise SystemExit(1)
PY
