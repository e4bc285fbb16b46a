#!/bin/bash
# unicorn 2.1.4 (PyPI): s390x with UC_HOOK_MEM_READ and UC_HOOK_MEM_WRITE over all addresses.
# A guess: the hooks are told of every load and store, of MVC, XC, NC (storage to storage) byte by byte or in one.
# Really: these three move and change their bytes, up to 256, and no hook is called, neither for reads nor for writes. CLC, which
# only compares, calls the read hook, TR both, and so do ST, STM, MVI and LM as one would think.
# For tracers, taint trackers and watchpoints on s390x: look at memory behind each such instruction (a code hook knows its
# operands); memcpy, memset and structure assignments of compiled code are made of MVC and XC.
set -u
T=$(mktemp -d) && trap 'rm -rf "$T"' EXIT || exit 2
python3 -m venv "$T/v" && timeout 100 "$T/v/bin/pip" install -q --disable-pip-version-check unicorn==2.1.4 >"$T/log" 2>&1 ||
    { echo "could not be tried: $(tail -1 "$T/log")"; exit 2; }
timeout 15 "$T/v/bin/python" - <<'PY'
from unicorn import UC_ARCH_S390X, UC_HOOK_MEM_READ, UC_HOOK_MEM_WRITE, UC_MODE_BIG_ENDIAN, Uc
from unicorn import s390x_const as s

CODE, TO, SOURCE = 0x1000, 0x10000, 0x10200
PROGRAMS = {  # of one instruction; register 1 points to TO, register 2 to SOURCE
    "mvc 16(8,1),16(2)": "d20710102010",
    "mvc 16(256,1),16(2)": "d2ff10102010",
    "xc 16(8,1),16(2)": "d70710102010",
    "nc 16(8,1),16(2)": "d40710102010",
    "clc 16(8,1),16(2)": "d50710102010",
    "tr 16(8,1),16(2)": "dc0710102010",
    "st 3,8(1)": "50301008",
    "stm 3,4,8(1)": "90341008",
    "mvi 8(1),0x55": "92551008",
    "lm 3,4,8(1)": "98341008",
}


def observe(code):
    """(calls of the read hook, of the write hook, bytes that have changed)"""
    uc = Uc(UC_ARCH_S390X, UC_MODE_BIG_ENDIAN)
    uc.mem_map(CODE, 0x1000)
    uc.mem_map(TO, 0x1000)
    uc.mem_write(CODE, code)
    uc.mem_write(TO, bytes(range(256)) * 2 + bytes(range(1, 256)) + bytes(257))
    uc.reg_write(s.UC_S390X_REG_R1, TO)
    uc.reg_write(s.UC_S390X_REG_R2, SOURCE)
    uc.reg_write(s.UC_S390X_REG_R3, 0x33333333)
    reads, writes = [], []
    uc.hook_add(UC_HOOK_MEM_READ, lambda _uc, _type, at, size, _value, _data: reads.append((at, size)))
    uc.hook_add(UC_HOOK_MEM_WRITE, lambda _uc, _type, at, size, _value, _data: writes.append((at, size)))
    before = bytes(uc.mem_read(TO, 0x400))
    uc.emu_start(CODE, CODE + len(code))
    return len(reads), len(writes), sum(a != b for a, b in zip(before, uc.mem_read(TO, 0x400)))


seen = {name: observe(bytes.fromhex(code)) for name, code in PROGRAMS.items()}
for name, (reads, writes, changed) in seen.items():
    print(f"observed: {name:20} reads told {reads:2}, writes told {writes}, bytes changed {changed}")
silent = [name for name, (reads, writes, changed) in seen.items() if changed and not reads and not writes]
told = [name for name, (reads, writes, _) in seen.items() if reads or writes]
print("expected: mvc, mvc, xc and nc change bytes and are told to nobody; clc, tr, st, stm, mvi and lm are told")
same = [n.split()[0] for n in silent] == ["mvc", "mvc", "xc", "nc"] and [n.split()[0] for n in told] == ["clc", "tr", "st", "stm", "mvi", "lm"]
print("" if same else "changed: others are told, or not", end="" if same else "\n")
raise SystemExit(0 if same else 1)
PY
