"""RISC-V beside its judges: the tests of riscv-tests, and Spike instruction by instruction."""
