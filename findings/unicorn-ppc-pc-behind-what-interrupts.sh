#!/bin/bash
# unicorn 2.1.4 (PyPI), PowerPC 32 and 64 bits, big-endian: the program counter in a UC_HOOK_INTR.
# A guess: it is what hardware saves in SRR0: of a trap, an instruction that there is not, or a floating-point one without
# MSR.FP its own address, of a system call the address behind it. Or it is the instruction's own for all.
# Really: for all of them it stands 4 bytes behind the instruction, also after emu_start has returned; an access to memory
# that is not there leaves it at the instruction. RISC-V does the same with its interrupts.
# For those who enter a guest's handler by hand: SRR0 is pc - 4 of a program interrupt, and pc of a system call.
set -u
T=$(mktemp -d) && trap 'rm -rf "$T"' EXIT || exit 2
python3 -m venv "$T/v" && timeout 100 "$T/v/bin/pip" install -q --disable-pip-version-check unicorn==2.1.4 >"$T/log" 2>&1 ||
    { echo "could not be tried: $(tail -1 "$T/log")"; exit 2; }
timeout 20 "$T/v/bin/python" - <<'PY'
from unicorn import UC_ARCH_PPC, UC_HOOK_INTR, UC_MODE_BIG_ENDIAN, UC_MODE_PPC32, UC_MODE_PPC64
from unicorn import Uc, UcError
from unicorn import ppc_const as p

NOP = 0x60000000
CASES = {"sc": 0x44000002, "trap": 0x7FE00008, "no instruction": 0x00000000, "fadd, no FP": 0xFC22182A, "lwz r3,0(0)": 0x80600000}
MODES = {32: (UC_MODE_PPC32, p.UC_CPU_PPC32_7457A_V1_2), 64: (UC_MODE_PPC64, p.UC_CPU_PPC64_970_V2_2)}


def run(mode, model, word):
    uc = Uc(UC_ARCH_PPC, mode | UC_MODE_BIG_ENDIAN)
    uc.ctl_set_cpu_model(model)
    uc.mem_map(0x1000, 0x1000)
    uc.mem_write(0x1000, b"".join(w.to_bytes(4, "big") for w in (NOP, NOP, word, NOP)))
    seen = []

    def interrupted(uc, number, _):
        seen.append(uc.reg_read(p.UC_PPC_REG_PC) - 0x1008)
        uc.emu_stop()

    uc.hook_add(UC_HOOK_INTR, interrupted)
    try:
        uc.emu_start(0x1000, 0x1010)
    except UcError:
        seen.append("error")
    return (*seen, uc.reg_read(p.UC_PPC_REG_PC) - 0x1008)


found = {bits: {name: run(*mode, word) for name, word in CASES.items()} for bits, mode in MODES.items()}
for bits, cases in found.items():
    print(f"observed: {bits} bits, pc less the instruction's address:", "; ".join(f"{n} {' '.join(map(str, v))}" for n, v in cases.items()))
right = {name: (4, 4) if name[0] != "l" else ("error", 0) for name in CASES}
print("expected:", "; ".join(f"{n} {' '.join(map(str, v))}" for n, v in right.items()), "on both")
if all(cases == right for cases in found.values()):
    raise SystemExit(0)
print("changed: pc stands elsewhere at an interrupt")
raise SystemExit(1)
PY
