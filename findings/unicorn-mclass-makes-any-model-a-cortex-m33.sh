#!/bin/bash
# unicorn 2.1.4 (PyPI), Arm: what UC_MODE_MCLASS does to the CPU model that ctl_set_cpu_model names.
# A guess: UC_MODE_THUMB | UC_MODE_MCLASS with UC_CPU_ARM_CORTEX_M0 or M3 gives that CPU, so that instructions of Armv8-M (TT)
# and of the floating-point extension (VMOV.F32) are undefined, as they are on UC_MODE_THUMB with the same model.
# Really: with UC_MODE_MCLASS the model makes no difference: even a Cortex-M0 executes both, as a Cortex-M33 does. Without it
# the model that was named is the one that runs, and it is of the M profile all the same.
# For emulators of microcontrollers: name the model and leave UC_MODE_MCLASS out, or code that the chip does not have runs.
set -u
T=$(mktemp -d) && trap 'rm -rf "$T"' EXIT || exit 2
python3 -m venv "$T/v" && timeout 100 "$T/v/bin/pip" install -q --disable-pip-version-check unicorn==2.1.4 >"$T/log" 2>&1 ||
    { echo "could not be tried: $(tail -1 "$T/log")"; exit 2; }
timeout 20 "$T/v/bin/python" - <<'PY'
from unicorn import UC_ARCH_ARM, UC_MODE_MCLASS, UC_MODE_THUMB, Uc, UcError
from unicorn.arm_const import (UC_ARM_REG_SP, UC_CPU_ARM_CORTEX_M0, UC_CPU_ARM_CORTEX_M3, UC_CPU_ARM_CORTEX_M33)

MODELS = {"M0": UC_CPU_ARM_CORTEX_M0, "M3": UC_CPU_ARM_CORTEX_M3, "M33": UC_CPU_ARM_CORTEX_M33}
CODES = {"TT": "41e800f0", "VMOV.F32": "b7ee000a"}


def runs(mode, model, code):
    uc = Uc(UC_ARCH_ARM, mode)
    uc.ctl_set_cpu_model(model)
    uc.mem_map(0x1000, 0x1000)
    uc.mem_map(0x20000000, 0x1000)
    uc.mem_write(0x1000, bytes.fromhex(code))
    uc.reg_write(UC_ARM_REG_SP, 0x20000800)
    try:
        uc.emu_start(0x1001, 0x1004, count=1)
    except UcError:
        return False
    return True


def told(mode):
    return {name: [code for code, data in CODES.items() if runs(mode, model, data)] for name, model in MODELS.items()}


with_mode, without = told(UC_MODE_THUMB | UC_MODE_MCLASS), told(UC_MODE_THUMB)
both = list(CODES)
print("observed: executed with UC_MODE_MCLASS", with_mode, "and without", without)
print("expected: executed with UC_MODE_MCLASS", dict.fromkeys(MODELS, both), "and without",
      {"M0": [], "M3": [], "M33": both})
same = with_mode == dict.fromkeys(MODELS, both) and without == {"M0": [], "M3": [], "M33": both}
print("" if same else "changed: the model that is named is the one that runs", end="" if same else "\n")
raise SystemExit(0 if same else 1)
PY
