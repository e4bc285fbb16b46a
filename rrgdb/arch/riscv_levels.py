"""Privilege levels of RISC-V ("The RISC-V Instruction Set Manual", volume II, section 1.2)."""

USER, SUPERVISOR, MACHINE = 0, 1, 3
