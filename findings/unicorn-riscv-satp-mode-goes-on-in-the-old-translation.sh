#!/bin/bash
# unicorn 2.1.4 (PyPI), RISC-V 64, SiFive U54: an instruction that turns address translation on.
# A guess: behind `csrw satp` from Bare to Sv39, with tables that do not map the code, the next instruction raises a fetch page
# fault (12): "changing satp.MODE from Bare to other modes and vice versa also takes effect immediately, without the need to
# execute an SFENCE.VMA instruction" (privileged specification, section 4.2.2). Linux begins by relying on it: SFENCE.VMA, CSRW
# SATP, and the fault goes on in the kernel's half.
# Really: with a jump between the fence and the write, code and loads go on where they were, by entries of Unicorn's TLB from
# behind the fence; only a write that changes the ASID flushes them. Right behind each other the two are one block, and the
# next fetch finds the TLB empty: then it faults.
# For emulators on Unicorn: flush the TLB behind a write of satp that changes MODE.
set -u
T=$(mktemp -d) && trap 'rm -rf "$T"' EXIT || exit 2
python3 -m venv "$T/v" && timeout 100 "$T/v/bin/pip" install -q --disable-pip-version-check unicorn==2.1.4 >"$T/log" 2>&1 ||
    { echo "could not be tried: $(tail -1 "$T/log")"; exit 2; }
timeout 20 "$T/v/bin/python" - <<'PY'
from unicorn import UC_ARCH_RISCV, UC_HOOK_INTR, UC_MODE_RISCV64, Uc
from unicorn.riscv_const import (UC_CPU_RISCV64_SIFIVE_U54, UC_RISCV_REG_A0, UC_RISCV_REG_A1, UC_RISCV_REG_PRIV,
                                 UC_RISCV_REG_T0, UC_RISCV_REG_T1)

BASE, ROOT = 0x80000000, 0x80002000  # the table maps nothing at all


def run(asid):
    """(instructions that ran behind the write of satp, whether the load was one of them, the exception or None)"""
    uc = Uc(UC_ARCH_RISCV, UC_MODE_RISCV64)
    uc.ctl_set_cpu_model(UC_CPU_RISCV64_SIFIVE_U54)
    uc.mem_map(BASE, 0x4000)
    words = (0x12000073,  # sfence.vma
             0x0040006F,  # j, to the next
             0x00033583,  # ld a1, 0(t1)
             0x18029073,  # csrw satp, t0
             0x00150513,  # addi a0, a0, 1
             0x00033583,  # ld a1, 0(t1)
             0x00150513,  # addi a0, a0, 1
             0x00000013)  # nop
    uc.mem_write(BASE, b"".join(w.to_bytes(4, "little") for w in words))
    uc.mem_write(BASE + 0x1000, (77).to_bytes(8, "little"))
    for register, value in ((UC_RISCV_REG_PRIV, 1), (UC_RISCV_REG_T1, BASE + 0x1000),
                            (UC_RISCV_REG_T0, 8 << 60 | asid << 44 | ROOT >> 12)):
        uc.reg_write(register, value)
    seen = []
    uc.hook_add(UC_HOOK_INTR, lambda uc, number, _: (seen.append(number), uc.emu_stop()))
    uc.emu_start(BASE, BASE + 4 * len(words), count=len(words))
    ran = uc.reg_read(UC_RISCV_REG_A0)
    return ran, ran == 2 and uc.reg_read(UC_RISCV_REG_A1) == 77, seen[0] if seen else None


found = {asid: run(asid) for asid in (0, 1)}
print("observed:", "; ".join(f"ASID {a}: {n} additions ran, the load {'did' if l else 'did not'}, exception {e}"
                             for a, (n, l, e) in found.items()))
print("expected: ASID 0: 2 additions ran, the load did, exception None; ASID 1: 0 additions ran, the load did not, exception 12")
same = found == {0: (2, True, None), 1: (0, False, 12)}
print("" if same else "changed: satp takes effect in another way", end="" if same else "\n")
raise SystemExit(0 if same else 1)
PY
