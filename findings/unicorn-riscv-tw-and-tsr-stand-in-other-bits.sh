#!/bin/bash
# unicorn 2.1.4 (PyPI), RISC-V 64, SiFive U54: mstatus.TW and mstatus.TSR.
# A guess: `csrs mstatus` of bits 21 (TW) and 22 (TSR) makes them read as 1, and then SRET in supervisor mode is illegal; or
# neither is there.
# Really: bits 21 and 22 stay 0 and SRET runs; the two live in bits 29 and 30, which the manual reserves. With bit 30 set
# SRET in supervisor mode is illegal (exception 2). RV32 is the same. QEMU 7.2 (sifive-u54) keeps bits 21 and 22.
# For emulators on Unicorn: move the two bits wherever a guest reads or writes mstatus.
set -u
T=$(mktemp -d) && trap 'rm -rf "$T"' EXIT || exit 2
python3 -m venv "$T/v" && timeout 100 "$T/v/bin/pip" install -q --disable-pip-version-check unicorn==2.1.4 >"$T/log" 2>&1 ||
    { echo "could not be tried: $(tail -1 "$T/log")"; exit 2; }
timeout 20 "$T/v/bin/python" - <<'PY'
from unicorn import UC_ARCH_RISCV, UC_HOOK_INTR, UC_MODE_RISCV64, Uc
from unicorn.riscv_const import (UC_CPU_RISCV64_SIFIVE_U54, UC_RISCV_REG_A0, UC_RISCV_REG_A1, UC_RISCV_REG_MEPC,
                                 UC_RISCV_REG_PC, UC_RISCV_REG_SEPC, UC_RISCV_REG_T0)


def run(bit):
    """(bits 21, 22, 29 and 30 of mstatus behind `csrs mstatus, 1 << bit`, exception of SRET in supervisor mode or None)"""
    uc = Uc(UC_ARCH_RISCV, UC_MODE_RISCV64)
    uc.ctl_set_cpu_model(UC_CPU_RISCV64_SIFIVE_U54)
    uc.mem_map(0x10000, 0x1000)
    words = (0x3002A073,  # csrs mstatus, t0
             0x30002573,  # csrr a0, mstatus
             0x3005A073,  # csrs mstatus, a1: MPP supervisor
             0x30200073,  # mret, to the next
             0x10200073,  # sret, to the next
             0x00000013)  # nop
    uc.mem_write(0x10000, b"".join(w.to_bytes(4, "little") for w in words))
    for register, value in ((UC_RISCV_REG_T0, 1 << bit), (UC_RISCV_REG_A1, 1 << 11), (UC_RISCV_REG_MEPC, 0x10010),
                            (UC_RISCV_REG_SEPC, 0x10014)):
        uc.reg_write(register, value)
    seen = []
    uc.hook_add(UC_HOOK_INTR, lambda uc, number, _: (seen.append(number), uc.emu_stop()))
    uc.emu_start(0x10000, 0x10018, count=6)
    status = uc.reg_read(UC_RISCV_REG_A0)
    return tuple(b for b in (21, 22, 29, 30) if status >> b & 1), seen[0] if seen else None


found = {bit: run(bit) for bit in (21, 22, 29, 30)}
print("observed:", "; ".join(f"bit {b}: reads as {v[0]}, sret {v[1]}" for b, v in found.items()))
print("expected: bit 21: reads as (), sret None; bit 22: reads as (), sret None; bit 29: reads as (29,), sret None; "
      "bit 30: reads as (30,), sret 2")
same = found == {21: ((), None), 22: ((), None), 29: ((29,), None), 30: ((30,), 2)}
print("" if same else "changed: TW and TSR stand elsewhere", end="" if same else "\n")
raise SystemExit(0 if same else 1)
PY
