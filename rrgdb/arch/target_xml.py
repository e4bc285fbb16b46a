"""GDB target descriptions out of the register tables (GDB manual, "Target Description Format")."""

from __future__ import annotations

from rrgdb.arch.base import Arch, Register
from rrgdb.arch.system import FEATURE, GROUP, SystemRegister
from rrgdb.text import attribute


def _reg(register: Register) -> str:
    group = f" group={attribute(register.group)}" if register.group else ""
    return (
        f"<reg name={attribute(register.name)} bitsize={attribute(str(register.bits))} "
        f"type={attribute(register.type)}{group}/>"
    )


def _system(register: SystemRegister) -> str:
    """GDB does not save it for a call, which would read and write each of them."""
    return (
        f"<reg name={attribute(register.name)} bitsize={attribute(str(register.bits))} "
        f'type={attribute(register.type)} group={attribute(GROUP)} save-restore="no"/>'
    )


def target_xml(arch: Arch) -> str:
    """The whole document; registers are numbered in the order of ``arch.registers`` and ``arch.shown_registers``. Those
    are not in the ``g`` packet: GDB reads one when it is asked for it.

    The OS ABI is "none": with its default, GNU/Linux, GDB steps RISC-V by breakpoints on the next instruction, and so
    never into a trap handler."""
    features = "".join(
        f"<feature name={attribute(feature.name)}>\n{feature.types}\n"
        + "".join(_reg(register) + "\n" for register in feature.registers)
        + "</feature>\n"
        for feature in arch.features
    )
    if arch.shown_registers:
        shown = "".join(_system(register) + "\n" for register in arch.shown_registers)
        features += f'<feature name="{FEATURE}">\n{arch.shown_types}\n{shown}</feature>\n'
    return (
        '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n<target version="1.0">\n'
        f"<architecture>{arch.gdb_architecture}</architecture>\n<osabi>none</osabi>\n{features}</target>\n"
    )
