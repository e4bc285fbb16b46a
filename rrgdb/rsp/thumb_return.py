"""GDB-Python for ``rrgdb gdbinit``: whom a Thumb function returns to, at the instruction that returns.

GCC (12.2 for one) writes no unwind information for the steps by which a Thumb function frees its stack before
``pop {…, pc}``: all Thumb-1 code, and Thumb-2 code tuned for cores that prefer LDRD. There GDB finds no caller, and a
``reverse-next`` over the call takes the function for another one and ends in it. The instruction itself says where
everything is.
"""

from __future__ import annotations

TEXT = '''

import struct

import gdb.unwinder


class _FrameId:
    def __init__(self, sp, pc):
        self.sp = sp
        self.pc = pc


def _function_at(pc):
    """The address of the function that is compiled to pc, None without debug information."""
    block = gdb.block_for_pc(pc)
    while block is not None and not (block.is_global or block.is_static or block.superblock.is_static):
        block = block.superblock
    return block.function.value().address if block is not None and block.function else None


class _ThumbReturn(gdb.unwinder.Unwinder):
    """The caller, at a Thumb `pop {..., pc}`."""

    def __init__(self):
        super().__init__("rrgdb-thumb-return")

    def __call__(self, pending):
        arch = pending.architecture()
        if not arch.name().startswith("arm") or pending.level() or arch.registers().find("cpsr") is None:
            return None
        cpsr = pending.read_register("cpsr")
        if not int(cpsr) & 0x20:
            return None
        sp, pc = pending.read_register("sp"), int(pending.read_register("pc"))
        try:
            *before, pop, listed = struct.unpack("<4H", gdb.selected_inferior().read_memory(pc - 4, 8))
        except gdb.MemoryError:
            return None
        # Behind `mov sp, r7` gdb is right, and shows locals that it would not find by an unwinder in Python.
        if 0x46BD in before:
            return None
        if pop >> 8 == 0xBD:
            listed = 0x8000 | pop & 0xFF
        elif pop != 0xE8BD or not listed & 0x8000:
            return None
        function = _function_at(pc)
        if function is None:
            return None
        word = arch.integer_type(32, False)
        stack = sp.cast(word.pointer())
        names = ["r%d" % number for number in range(13) if listed >> number & 1]
        if listed & 0x4000:
            names.append("lr")
        saved = {name: stack[at] for at, name in enumerate(names)}
        back = int(stack[len(names)])
        saved["pc"] = gdb.Value(back & ~1).cast(word)
        saved["sp"] = stack + (len(names) + 1)
        saved["cpsr"] = gdb.Value(int(cpsr) & ~0x20 | (back & 1) << 5).cast(word)
        info = pending.create_unwind_info(_FrameId(saved["sp"], function))
        for register in arch.registers("save"):
            value = saved.get(register.name)
            info.add_saved_register(register, pending.read_register(register) if value is None else value)
        return info


gdb.unwinder.register_unwinder(None, _ThumbReturn(), replace=True)
'''
