from collections.abc import Sequence

Control = tuple[int, bytes, int, int, int]
Way = tuple[Sequence[tuple[int, int]], Sequence[Control]]
"""(host address, bytes) of entries of page tables, and registers as for ``set_controls``"""

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
FIND: int
LEARN: int
NONE: int
DEBUG: int
CLASS_PLAIN: int
CLASS_MMU: int
CLASS_TRAP: int
CLASS_SYSCALL: int
CLASS_STATUS: int
DENIED: int
ILLEGAL: int
DIVISION: int
UNMASKED: int
JUMP_BYTES: int
FUNCTIONS: tuple[str, ...]
"""of libunicorn, which a ``Core`` calls"""
FAMILIES: tuple[str, ...]
"""CPU families that a ``Core`` can be of; ``plain`` is of any that has no entry of its own"""
REGISTER_PC: int
REGISTER_ZERO: int
REGISTER_ASK: int
SLOW: int
CAN_INLINE: int
"""whether code of this host can be counted inside"""

def set_agent_operations(table: bytes) -> None: ...

class Core:
    """Hooks and counters of one ``uc_engine``, which must outlive it."""

    icount: int
    limit: int
    user_limit: int
    skip: int
    pc: int
    last_pc: int
    run_icount: int
    again: int
    whole: int
    interrupt: int
    last_size: int
    exception: int
    error: int
    faulted: int
    fault_address: int
    denied: int
    denied_at: int
    denied_status: int
    bp_last: int
    watch_last: int
    code_thumb: int
    mmu_seen: int
    table_size: int
    tlb_stale: int
    fills: int
    inlined: int
    learns: int
    asked_page: int
    executed: int
    looked: int
    exceptions: int
    hooks_asked: int
    watches_asked: int
    exit_looks: int
    judged: int
    time_ahead: int
    phase: int
    code_base: int
    def __init__(
        self,
        *,
        uc: int,
        functions: dict[str, int],
        family: str,
        wide: bool,
        big_endian: bool,
        places: dict[str, int],
        filters: tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]],
        code_pages: bytearray,
        ram: int,
        fast: bool,
        pc: int,
        stale_pc: int,
        bare: bool,
        no_sync: int,
        inlines: bool,
        mapping: int,
    ) -> None:
        """Add the hooks that stay.

        uc, functions: the engine's handle; the address of each of FUNCTIONS.
        family, wide, big_endian: one of FAMILIES, 64 bits, code and data.
        places: what the family (see ``_family.h``) is told by name, all of it:
            x86: numbers of registers of Unicorn: ``rcx``, ``rsp`` (ECX and ESP on 32 bits), ``flags``, ``debug`` (DR0).
            arm: addresses within Unicorn's structures: ``pc`` (u32), ``thumb``, ``condexec``, ``no_exit`` (u8 each),
            ``jump`` (a jump buffer of JUMP_BYTES).
            riscv: such addresses: ``privilege``, ``status`` (u32 each), ``floats`` (32 u64), or none of them: then
            nothing is judged or mended that Unicorn has wrong.
            aarch64, plain: none.
        filters: (mask, value) of the first four bytes of an instruction, as the guest reads them, of each instruction
            set: those are classified before they run. Not asked on x86.
        code_pages: a byte for each page of RAM, which becomes 1 where code was executed.
        ram: address of all RAM. fast: the fast gear.
        pc, stale_pc: the number of that register of Unicorn; how far ahead it is where an exception has ended a run.
        bare: exceptions and invalid accesses are others' to handle.
        no_sync: address of Unicorn's flag that keeps it from bringing the state up to date at each access, or 0.
        inlines: blocks are counted inside the generated code, where that can be.
        mapping: address of Unicorn's pointer to its search for what is mapped at a physical address, or 0: then blocks
            of guests that translate addresses are never counted as a whole.

        Raises KeyError for a function or place that is missing, ValueError for a family or place that there is not, or
        for too many filters, RuntimeError if Unicorn refuses a hook.
        """

    def add_region(self, base: int, size: int, host: int, store: int = 0, /) -> None:
        """``host``, ``store``: addresses, the latter of a callback as ``uc_mmio_map`` takes it, or 0: RAM."""

    def clear_regions(self) -> None: ...
    def run(self, pc: int, limit: int, /) -> int: ...
    def set_context(self, address: int, flags: int, previous: int, segment: int, modes: int, /) -> None: ...
    def address(self) -> int: ...
    def performed(self) -> None: ...
    def restore_flags(self) -> None: ...
    def retract(self) -> None: ...
    def retired(self) -> None: ...
    def set_rules(self, rules: int, regions: Sequence[tuple[int, int, int, int]], /) -> None: ...
    def set_pmp(self, entries: Sequence[tuple[int, int, int, bool]], /) -> None: ...
    def set_controls(self, controls: Sequence[Control], /) -> None: ...
    def set_regime(self, controls: Sequence[Control], /) -> None: ...
    def take_regime(self) -> bool: ...
    def set_masks(self, places: Sequence[tuple[int, int]], /) -> None: ...
    def keep_time(self, shift: int, slept: int, ahead: int, /) -> None: ...
    def await_unmasked(self, raised: int, /) -> None: ...
    def arrive(self, pc: int, /) -> int: ...
    def leave(self) -> None: ...
    def request_interrupt(self) -> None: ...
    def clear_interrupt(self) -> None: ...
    def set_class(self, code: bytes, second: bool, kind: int, /) -> None: ...
    def set_registers(self, registers: Sequence[tuple[int, int, int]], /) -> None: ...
    def set_breakpoints(self, points: Sequence[tuple[int, tuple[bytes, ...] | None]], /) -> None: ...
    def learn(self, page: int, host: int, way: Way | None, /) -> None: ...
    def place_watches(self, places: Sequence[tuple[int | None, Way | None]], /) -> None: ...
    def set_entry(self, context: int, fault: int | None, syndrome: int | None, words: tuple[bytes, ...], /) -> None: ...
    def device_accessed(self, physical: int, size: int, store: bool, /) -> None: ...
    def set_watches(self, watches: Sequence[tuple[int, int, bytes, bool, bool]], /) -> None: ...
    def set_guard(self, base: int, /) -> None: ...
    def rearm(self) -> None: ...
    def set_collect(self, on: bool, /) -> None: ...
    def take_watch_hits(self) -> list[tuple[int, bytes, bytes]]: ...
    def lower_limit(self, icount: int, /) -> None: ...
    def set_mmu(self, on: bool, /) -> None: ...
    def forget_blocks(self) -> None: ...
    def set_hooked(self, slow: bool, code: Sequence[tuple[int, int]], memory: Sequence[tuple[int, int]], /) -> None:
        """What a script has hooks for, as (first, last): instructions and blocks; accesses. ``slow``: every instruction
        is to be looked at."""
    def accompany(self, kind: int, begin: int, end: int, /) -> list[int]:
        """Handles of the companions of the hook of a script that is added next."""
    def count_stopped(self) -> None: ...
    def dismiss(self, handle: int, /) -> None: ...
    def refuses(self, type_: int, /) -> bool:
        """From within a hook of a script for an access, if ``whole``: whether the access is not made now."""
    def set_range(self, start: int, end: int, /) -> None: ...
    def trapped_code(self) -> bytes: ...
    def take_code(self) -> bytes | None: ...
    def forget_code(self) -> None: ...
    def read_registers(self, plan: bytes, /) -> bytes: ...
    def read_word(self, place: bytes, /) -> int: ...
    def write_word(self, place: bytes, value: int, /) -> int: ...
