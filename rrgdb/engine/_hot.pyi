from collections.abc import Sequence

LIMIT: int
BREAKPOINT: int
WATCHPOINT: int
RANGE: int
INTERRUPT: int
CLASSIFY: int
TRAP: int
SYSCALL: int
EXCEPTION: int
ERROR: int
LOST: int
NONE: int
CLASS_PLAIN: int
CLASS_MMU: int
CLASS_TRAP: int
CLASS_SYSCALL: int
JUMP_BYTES: int
FUNCTIONS: tuple[str, ...]
REGISTER_PC: int
REGISTER_ZERO: int
REGISTER_ASK: int
SLOW: int

class Core:
    icount: int
    limit: int
    skip: int
    pc: int
    last_pc: int
    run_icount: int
    last_size: int
    exception: int
    error: int
    faulted: int
    fault_address: int
    bp_last: int
    watch_last: int
    code_thumb: int
    mmu_seen: int
    tlb_stale: int
    fills: int
    phase: int
    def __init__(
        self,
        *,
        uc: int,
        functions: dict[str, int],
        x86: bool,
        mode64: bool,
        precise_smc: bool,
        rcx: int,
        rsp: int,
        filters: tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]],
        code_pages: bytearray,
        ram: int,
        fast: bool,
        compressed: bool,
        pc: int,
        stale_pc: int,
        eflags: int,
        bare: bool,
        arm: tuple[int, ...],
        no_sync: int,
    ) -> None: ...
    def add_region(self, base: int, size: int, host: int, /) -> None: ...
    def clear_regions(self) -> None: ...
    def run(self, pc: int, limit: int, /) -> int: ...
    def set_context(self, address: int, flags: int, previous: int, /) -> None: ...
    def restore_flags(self) -> None: ...
    def retract(self) -> None: ...
    def arrive(self, pc: int, /) -> int: ...
    def leave(self) -> None: ...
    def request_interrupt(self) -> None: ...
    def clear_interrupt(self) -> None: ...
    def set_class(self, code: bytes, thumb: bool, kind: int, /) -> None: ...
    def set_registers(self, registers: Sequence[tuple[int, int]], /) -> None: ...
    def set_breakpoints(self, points: Sequence[tuple[int, tuple[bytes, ...] | None]], /) -> None: ...
    def set_watches(self, watches: Sequence[tuple[int, int, bytes]], /) -> None: ...
    def set_guard(self, base: int, /) -> None: ...
    def rearm(self) -> None: ...
    def set_collect(self, on: bool, /) -> None: ...
    def take_watch_hits(self) -> list[tuple[int, bytes, bytes]]: ...
    def lower_limit(self, icount: int, /) -> None: ...
    def set_mmu(self, on: bool, /) -> None: ...
    def forget_blocks(self) -> None: ...
    def set_range(self, start: int, end: int, /) -> None: ...
    def trapped_code(self) -> bytes: ...
    def take_code(self) -> bytes | None: ...
    def forget_code(self) -> None: ...
    def read_registers(self, plan: bytes, /) -> bytes: ...
