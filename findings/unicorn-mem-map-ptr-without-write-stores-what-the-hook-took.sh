#!/bin/bash
# unicorn 2.1.4 (PyPI), AArch64: a store to memory without write permission whose UC_HOOK_MEM_WRITE_PROT hook returns True.
# A guess: memory that mem_map makes with UC_PROT_READ | UC_PROT_EXEC, and memory that mem_map_ptr makes with the same
# permissions, are alike: what the hook lets pass is stored in both, or in neither.
# Really: the hook is called once for either, and the run goes on; but what mem_map made keeps its contents, and what
# mem_map_ptr made gets the store, until mem_protect has been called with the very same permissions.
# For emulators of ROM and flash: call mem_protect behind mem_map_ptr, or commands to the chip end up in its contents.
set -u
T=$(mktemp -d) && trap 'rm -rf "$T"' EXIT || exit 2
python3 -m venv "$T/v" && timeout 100 "$T/v/bin/pip" install -q --disable-pip-version-check unicorn==2.1.4 >"$T/log" 2>&1 ||
    { echo "could not be tried: $(tail -1 "$T/log")"; exit 2; }
timeout 20 "$T/v/bin/python" - <<'PY'
import ctypes

from unicorn import UC_ARCH_ARM64, UC_HOOK_MEM_WRITE_PROT, UC_MODE_ARM, UC_PROT_EXEC, UC_PROT_READ, Uc
from unicorn.arm64_const import UC_ARM64_REG_X0, UC_ARM64_REG_X1

READ_ONLY = UC_PROT_READ | UC_PROT_EXEC


def run(how):
    """(calls of the hook, what stands in memory behind a store of 0x90)"""
    uc = Uc(UC_ARCH_ARM64, UC_MODE_ARM)
    uc.mem_map(0x10000, 0x1000)
    uc.mem_write(0x10000, 0xB9000020.to_bytes(4, "little"))  # str w0, [x1]
    backing = ctypes.create_string_buffer(0x2000)
    page = -(-ctypes.addressof(backing) // 0x1000) * 0x1000
    if how == "mem_map":
        uc.mem_map(0x20000, 0x1000, READ_ONLY)
    else:
        uc.mem_map_ptr(0x20000, 0x1000, READ_ONLY, page)
    if how == "mem_protect":
        uc.mem_protect(0x20000, 0x1000, READ_ONLY)
    calls = []
    uc.hook_add(UC_HOOK_MEM_WRITE_PROT, lambda uc, kind, address, size, value, _: calls.append(address) or True)
    uc.reg_write(UC_ARM64_REG_X0, 0x90)
    uc.reg_write(UC_ARM64_REG_X1, 0x20000)
    uc.emu_start(0x10000, 0x10004, count=1)
    return len(calls), hex(int.from_bytes(uc.mem_read(0x20000, 4), "little"))


found = {how: run(how) for how in ("mem_map", "mem_map_ptr", "mem_protect")}
print("observed:", found)
print("expected: {'mem_map': (1, '0x0'), 'mem_map_ptr': (1, '0x90'), 'mem_protect': (1, '0x0')}")
same = found == {"mem_map": (1, "0x0"), "mem_map_ptr": (1, "0x90"), "mem_protect": (1, "0x0")}
print("" if same else "changed: they are alike, or other than they were", end="" if same else "\n")
raise SystemExit(0 if same else 1)
PY
