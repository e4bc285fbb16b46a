#!/bin/bash
# unicorn 2.1.4 (PyPI): emu_stop within a write hook, for a store of an instruction that makes many (DC ZVA, FXSAVE).
# A guess: the run ends behind that instruction, and no code hook is called any more, however many there are.
# Really: all of the instruction's stores are made (and told), then a code hook that is the only one in the engine is called for the
# next instruction too, which does not execute. With a second code hook anywhere neither of them is. A plain store
# (STR, MOV) ends the run at once, with one hook or two.
# The one hook is called by generated code of its own, several by a function that looks whether the run is to end; and stores
# that Unicorn's helpers make are not followed by a look at that.
# For tracers and counters of instructions: what a code hook was told of has not always executed. Compare with pc at the end.
set -u
T=$(mktemp -d) && trap 'rm -rf "$T"' EXIT || exit 2
python3 -m venv "$T/v" && timeout 100 "$T/v/bin/pip" install -q --disable-pip-version-check unicorn==2.1.4 >"$T/log" 2>&1 ||
    { echo "could not be tried: $(tail -1 "$T/log")"; exit 2; }
timeout 15 "$T/v/bin/python" - <<'PY'
from unicorn import UC_ARCH_ARM64, UC_ARCH_X86, UC_HOOK_CODE, UC_HOOK_MEM_WRITE, UC_MODE_64, UC_MODE_ARM, Uc
from unicorn import arm64_const as a, x86_const as x

CODE, DATA = 0x1000, 0x10000
ARM, X86 = (UC_ARCH_ARM64, UC_MODE_ARM), (UC_ARCH_X86, UC_MODE_64)
COUNT = {ARM: "21040091" * 3, X86: "ffc1" * 3}  # add x1, x1, #1; inc ecx
REGISTERS = {ARM: (a.UC_ARM64_REG_X0, a.UC_ARM64_REG_X1), X86: (x.UC_X86_REG_RAX, x.UC_X86_REG_RCX)}
STORES = {  # to where the first register points
    "dc zva": (ARM, "20740bd5"), "str": (ARM, "010000f9"), "fxsave": (X86, "0fae00"), "mov": (X86, "8908"),
}  # fmt: skip


def observe(cpu, store, hooks):
    """(instructions that the first code hook was told of, as offsets; how many ran behind the store)"""
    uc = Uc(*cpu)
    code = bytes.fromhex(store + COUNT[cpu])
    uc.mem_map(CODE, 0x1000)
    uc.mem_map(DATA, 0x1000)
    uc.mem_write(CODE, code)
    pointer, count = REGISTERS[cpu]
    uc.reg_write(pointer, DATA)
    told = []
    uc.hook_add(UC_HOOK_CODE, lambda _uc, at, _size, _data: told.append(at - CODE))
    for _ in range(hooks - 1):
        uc.hook_add(UC_HOOK_CODE, lambda *_: None)
    uc.hook_add(UC_HOOK_MEM_WRITE, lambda uc, *_: uc.emu_stop())
    uc.emu_start(CODE, CODE + len(code))
    return told, uc.reg_read(count)


seen = {name: [observe(*case, hooks) for hooks in (1, 2)] for name, case in STORES.items()}
print("observed:", seen)
expected = {"dc zva": [([0, 4], 0), ([0], 0)], "str": [([0], 0), ([0], 0)], "fxsave": [([0, 3], 0), ([0], 0)], "mov": [([0], 0), ([0], 0)]}
print("expected:", expected)
print("" if seen == expected else "changed: the hooks are told of others", end="" if seen == expected else "\n")
raise SystemExit(0 if seen == expected else 1)
PY
