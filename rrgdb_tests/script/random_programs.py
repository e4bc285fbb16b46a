"""Scripts made up by a seed: a program that does what scripts have hooks for, and hooks that do anything."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from unicorn import UcError
from unicorn import unicorn_const as const

from rrgdb_tests.script.rig import CODE, DATA, DEVICE, PAGE, assemble, register

HOLE = 0x40_0000
"""nothing is mapped there at first"""
STACK, COUNTER = DATA + PAGE - 256, DATA + PAGE - 128
FAMILIES = ("x86_64", "i386", "aarch64", "arm", "thumb", "riscv64", "riscv32")
ROOM = 2 * PAGE
"""bytes of code, and as many of data"""


@dataclass(frozen=True)
class Idiom:
    """How a family writes what the programs do; ``{n}`` is an offset, ``{i}`` a small number, ``{l}`` a label."""

    start: str
    loop: str
    ops: dict[str, str]
    skip: tuple[str, str]
    inner: tuple[str, str]
    value: str
    """the register that hooks change"""
    pc: str


def _x86(wide: bool) -> Idiom:
    r = "r" if wide else "e"
    here = "(%rip)" if wide else ""
    return Idiom(
        start=f"mov ${DATA:#x},%{r}si; mov ${DEVICE:#x},%{r}di; mov ${STACK:#x},%{r}sp; mov ${{i}},%ebp",
        loop="dec %ebp; jnz 9b; nop",
        ops={
            "add": "add ${i},%eax",
            "mix": "xor %eax,%ebx; rol $3,%ebx",
            "store": f"mov %eax,{{n}}(%{r}si)",
            "change": f"add %ebx,{{n}}(%{r}si)",
            "load": f"mov {{n}}(%{r}si),%ebx",
            "flags": f"cmp $0xf0000000,%eax; setc {{n}}(%{r}si); pushf; pop %{r}bx",
            "repeat": f"push %{r}di; lea {{n}}(%{r}si),%{r}di; mov $3,%ecx; rep stosl; pop %{r}di",
            "divide": "xor %edx,%edx; mov ${i},%ecx; inc %ecx; div %ecx",
            "device": f"mov (%{r}di),%ebx; mov %eax,4(%{r}di)",
            "change device": f"add %eax,(%{r}di)",
            "call": "int $0x80",
            "own code": f"incb {{l}}f+1{here}; {{l}}: mov ${{i}},%cl; add %ecx,%eax",
            "other code": f"incb 8f+1{here}",
            "miss": f"mov {HOLE + 16:#x},%ebx",
            "lose": f"mov %eax,{HOLE + PAGE + 16:#x}",
            "crossing": f"mov %{r}ax,{DATA + PAGE - 2:#x}",
        },
        skip=("test $1,%eax; jnz {l}f", "{l}:"),
        inner=(f"movl $5,{COUNTER:#x}; {{l}}:", f"decl {COUNTER:#x}; jnz {{l}}b"),
        value="rbx" if wide else "ebx",
        pc="rip" if wide else "eip",
    )


def _aarch64() -> Idiom:
    changed = "ldr w8,[x7]; add w8,w8,#1024; and w8,w8,#0xffcfffff; str w8,[x7]"
    return Idiom(
        start=f"mov x4,#{DATA:#x}; mov x5,#{DEVICE:#x}; mov x6,#{HOLE:#x}; mov w3,#{{i}}",
        loop="subs w3,w3,#1; b.ne 9b; nop",
        ops={
            "add": "add w0,w0,#{i}",
            "mix": "eor w1,w1,w0; ror w1,w1,#3",
            "store": "str w0,[x4,#{n}]",
            "change": "add x7,x4,#{n}; ldxr w8,[x7]; add w8,w8,w1; stxr w9,w8,[x7]",
            "load": "ldr w1,[x4,#{n}]",
            "pair": "add x7,x4,#{n}; stp w0,w1,[x7]; ldp w8,w1,[x7]",
            "device": "ldr w1,[x5]; str w0,[x5,#4]",
            "call": "svc #0",
            "own code": f"adr x7,{{l}}f; {changed}; {{l}}: add w0,w0,#{{i}}",
            "other code": f"adr x7,8f; {changed}",
            "miss": "ldr w1,[x6,#16]",
            "lose": "add x7,x6,#4096; str w0,[x7,#16]",
            "zero": "dc zva,x4",
        },
        skip=("tbnz w0,#0,{l}f", "{l}:"),
        inner=("mov w2,#5; {l}:", "subs w2,w2,#1; b.ne {l}b"),
        value="x1",
        pc="pc",
    )


def _arm() -> Idiom:
    return Idiom(
        start=f"mov r4,#{DATA:#x}; mov r5,#{DEVICE:#x}; mov r6,#{HOLE:#x}; add r7,r4,#0xf00; mov sp,r7; mov r3,#{{i}}",
        loop="subs r3,r3,#1; bne 9b; nop",
        ops={
            "add": "add r0,r0,#{i}",
            "mix": "eor r1,r1,r0; ror r1,r1,#3",
            "store": "str r0,[r4,#{n}]",
            "change": "add r7,r4,#{n}; ldrex r8,[r7]; add r8,r8,r1; strex r9,r8,[r7]",
            "load": "ldr r1,[r4,#{n}]",
            "condition": "cmp r0,r1; addhi r0,r0,#1; strlo r0,[r4,#{n}]",
            "several": "push {{r0,r1,r2}}; pop {{r7,r8,r9}}",
            "device": "ldr r1,[r5]; str r0,[r5,#4]",
            "call": "svc #0",
            "own code": "adr r7,{l}f; ldrb r8,[r7]; add r8,r8,#1; strb r8,[r7]; {l}: add r0,r0,#{i}",
            "other code": "adr r7,8f; ldrb r8,[r7]; add r8,r8,#1; strb r8,[r7]",
            "miss": "ldr r1,[r6,#16]",
            "lose": "add r7,r6,#4096; str r0,[r7,#16]",
        },
        skip=("tst r0,#1; bne {l}f", "{l}:"),
        inner=("mov r2,#5; {l}:", "subs r2,r2,#1; bne {l}b"),
        value="r1",
        pc="pc",
    )


def _thumb() -> Idiom:
    idiom = _arm()
    changed = "ldrb r8,[r7]; add r8,r8,#1; strb r8,[r7]"
    ops = {name: op for name, op in idiom.ops.items() if name not in ("condition", "own code", "other code")} | {
        "condition": "cmp r0,r1; ite hi; addhi r0,r0,#1; strls r0,[r4,#{n}]",
        "conditions": "cmp r1,#0; ittte ge; addge r0,r0,#3; ldrge r1,[r4,#{n}]; strge r0,[r4,#{n}]; movlt r1,r0",
        "own code": f"adr r7,{{l}}f; {changed}; .balign 4; {{l}}: adds r0,#{{i}}",
        "other code": f"adr.w r7,8f; {changed}",
    }
    return replace(idiom, start=f".syntax unified; .thumb; {idiom.start}", loop="subs r3,r3,#1; bne.w 9b; nop", ops=ops)


def _riscv() -> Idiom:
    changed = "lw t0,0(t1); lui t2,0x100; add t0,t0,t2; sw t0,0(t1)"
    return Idiom(
        start=f"li a4,{DATA:#x}; li a5,{DEVICE:#x}; li a6,{HOLE:#x}; li s1,{{i}}",
        loop="addi s1,s1,-1; beqz s1,7f; j 9b; 7: nop",
        ops={
            "add": "addi a0,a0,{i}",
            "mix": "xor a1,a1,a0; slli a1,a1,1; addi a1,a1,3",
            "store": "sw a0,{n}(a4)",
            "change": "addi t0,a4,{n}; amoadd.w t1,a1,(t0)",
            "load": "lw a1,{n}(a4)",
            "device": "lw a1,0(a5); sw a0,4(a5)",
            "call": "ecall",
            "own code": f".option push; .option norvc; la t1,{{l}}f; {changed}; {{l}}: addi a0,a0,{{i}}; .option pop",
            "other code": f"la t1,8f; {changed}",
            "miss": "lw a1,16(a6)",
            "lose": "lui t0,1; add t0,t0,a6; sw a0,16(t0)",
            "divide": "divu a0,a0,a1",
        },
        skip=("andi t0,a0,1; bnez t0,{l}f", "{l}:"),
        inner=("li a2,5; {l}:", "addi a2,a2,-1; bnez a2,{l}b"),
        value="a1",
        pc="pc",
    )


IDIOMS = {
    "x86_64": _x86(True),
    "i386": _x86(False),
    "aarch64": _aarch64(),
    "arm": _arm(),
    "thumb": _thumb(),
    "riscv64": _riscv(),
    "riscv32": _riscv(),
}
LAST = {
    "x86_64": "8: mov $1,%dl",
    "i386": "8: mov $1,%dl",
    "aarch64": "8: add w0,w0,#1",
    "arm": "8: add r0,r0,#1",
    "thumb": ".balign 4; 8: adds r0,#1",
    "riscv64": ".option push; .option norvc; 8: addi a0,a0,1; .option pop",
}
LAST["riscv32"] = LAST["riscv64"]
RARE = ("own code", "other code", "miss", "lose", "crossing", "zero", "change device")


def program(family: str, rng: random.Random, rounds: int, *, rare: bool) -> bytes:
    """A loop of so many rounds."""
    idiom, labels = IDIOMS[family], iter(range(100, 10_000))
    common = [op for op in idiom.ops if op not in RARE]
    wanted = rng.sample(common, rng.randrange(2, len(common)))
    if rare:
        wanted += rng.sample([op for op in idiom.ops if op in RARE], rng.randrange(1, 4))

    def one() -> str:
        words = {"i": str(rng.randrange(1, 60)), "n": str(16 * rng.randrange(40)), "l": str(next(labels))}
        return idiom.ops[rng.choice(wanted)].format(**words)

    body: list[str] = []
    for _ in range(rng.randrange(4, 14)):
        label, kind = str(next(labels)), rng.randrange(6)
        around = idiom.skip if kind == 0 else idiom.inner if kind == 1 else ("", "")
        body += [around[0].format(l=label), *(one() for _ in range(rng.randrange(1, 4))), around[1].format(l=label)]
        if kind == 2:
            body.append(LAST[family])
    text = [idiom.start.format(i=rounds), "9:", *body, LAST[family], idiom.loop]
    return assemble(family, "\n".join(line for line in text if line))


@dataclass
class Script:
    """What it does follows from ``seed`` and from what it sees. ``meddles``: its hooks change the machine."""

    family: str
    seed: int
    rounds: int = 250
    meddles: bool = True
    rare: bool = True
    kinds: tuple[str, ...] = ("code", "block", "read", "write", "hole", "intr", "everything")
    seen: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = random.Random(f"{self.family} {self.seed}")
        self.code = program(self.family, rng, self.rounds, rare=self.rare)
        self._rng = random.Random(rng.random())

    @property
    def arch(self) -> str:
        return "arm" if self.family == "thumb" else self.family

    def run(self, uc: Any, icount: Callable[[], int] = lambda: 0) -> list[tuple[Any, ...]]:
        """All that the script sees; ``icount`` tells the position."""
        rng, self.seen = self._rng, []
        self.icount = icount
        end = CODE + len(self.code)
        self._handles: list[int] = []
        self._value = register(self.arch, IDIOMS[self.family].value)
        self._pc = register(self.arch, IDIOMS[self.family].pc)
        uc.mem_map(CODE, ROOM)
        uc.mem_map(DATA, ROOM)
        uc.mem_write(CODE, self.code)
        uc.mmio_map(DEVICE, PAGE, self._read_device, None, self._write_device, None)
        if "intr" in self.kinds:
            uc.hook_add(const.UC_HOOK_INTR, self._hook("intr"))
        if self.family == "thumb":
            # A hook for an access leaves Unicorn's ITSTATE as it is within an IT block.
            self.kinds = ("code", "block", "intr")
        elif self.rare and rng.randrange(5):
            self._add(uc, "hole")
        for _ in range(rng.randrange(4)):
            self._add(uc)
        pc = CODE
        for _ in range(rng.randrange(2, 8)):
            count = rng.choice((60_000, 60_000, rng.randrange(1, 2_000), rng.randrange(1, 12)))
            try:
                uc.emu_start(pc | (self.family == "thumb"), end, count=count)
            except UcError as e:
                self.seen.append(("error", str(e), icount()))
                if rng.randrange(2) and not any(
                    first < HOLE + 2 * PAGE and last >= HOLE for first, last, _ in uc.mem_regions()
                ):
                    uc.mem_map(HOLE, 2 * PAGE)
            pc = uc.reg_read(self._pc)
            self.seen.append(("end", pc, icount(), uc.reg_read(self._value)))
            if not CODE <= pc < end:
                break
            if rng.randrange(3) == 0:
                self._meddle(uc)
        self.seen.append(("data", bytes(uc.mem_read(DATA, ROOM))))
        return self.seen

    def _add(self, uc: Any, kind: str = "") -> None:
        rng = self._rng
        kind = kind or rng.choice([k for k in self.kinds if k != "intr"])
        at, length = CODE + rng.randrange(len(self.code)), rng.choice((0, 0, 3, 40))
        data, size = DATA + 16 * rng.randrange(40), rng.choice((0, 3, 15, 100))
        if kind == "code":
            handle = uc.hook_add(const.UC_HOOK_CODE, self._hook(kind), None, at, at + length)
        elif kind == "block":
            handle = uc.hook_add(const.UC_HOOK_BLOCK, self._hook(kind), None, at, at + length)
        elif kind == "read":
            handle = uc.hook_add(const.UC_HOOK_MEM_READ, self._hook(kind), None, data, data + size)
        elif kind == "write":
            handle = uc.hook_add(const.UC_HOOK_MEM_WRITE, self._hook(kind), None, data, data + size)
        elif kind == "hole":
            kinds = const.UC_HOOK_MEM_READ_UNMAPPED | const.UC_HOOK_MEM_WRITE_UNMAPPED | const.UC_HOOK_MEM_WRITE_PROT
            handle = uc.hook_add(kinds, self._fill)
        else:
            kinds = (const.UC_HOOK_CODE, const.UC_HOOK_BLOCK, const.UC_HOOK_MEM_WRITE, const.UC_HOOK_MEM_READ)
            handle = uc.hook_add(rng.choice(kinds), self._hook(kind))
        self._handles.append(handle)

    def _note(self, uc: Any, kind: str, *args: Any) -> None:
        self.seen.append((kind, *args, self.icount(), uc.reg_read(self._value)))

    def _hook(self, kind: str) -> Callable[..., None]:
        def called(uc: Any, *args: Any) -> None:
            self._note(uc, kind, *args[:-1])
            if self.meddles and self._rng.randrange(150) == 0:
                # Unicorn crashes where hooks are deleted or memory is mapped in the midst of an access.
                self._meddle(uc, safely=kind not in ("code", "block", "intr"))
            if kind == "intr" and self.meddles:
                uc.reg_write(self._value, self._rng.randrange(1 << 16))
            if len(self.seen) > 4_000:
                uc.emu_stop()

        return called

    def _fill(self, uc: Any, access: int, address: int, size: int, value: int, _data: Any) -> bool:
        self._note(uc, "hole", access, address, size, value)
        if access == const.UC_MEM_WRITE_PROT:
            uc.mem_protect(address & -PAGE, PAGE)
            return True
        if not self.meddles or self._rng.randrange(6) == 0 or not HOLE <= address < HOLE + 2 * PAGE:
            return False
        uc.mem_map(address & -PAGE, PAGE)
        uc.mem_write(address & -PAGE, b"\x21" * 64)
        return True

    def _meddle(self, uc: Any, *, safely: bool = False) -> None:
        rng = self._rng
        act = rng.choice((0, 1, 2, 5)) if safely else rng.randrange(9)
        if act == 0:
            uc.emu_stop()
        elif act == 1:
            uc.reg_write(self._value, rng.randrange(1 << 16))
        elif act == 2:
            uc.mem_write(DATA + 4 * rng.randrange(160), rng.randbytes(8))
        elif act == 3:
            self._add(uc)
        elif act == 4 and self._handles:
            uc.hook_del(self._handles.pop(rng.randrange(len(self._handles))))
        elif act == 5:
            at = rng.randrange(len(self.code) - 8)
            uc.mem_write(CODE + at, self.code[at : at + 8])
        elif act == 6 and self.rare:
            uc.mem_protect(DATA, PAGE, rng.choice((const.UC_PROT_READ, const.UC_PROT_ALL)))
        elif act == 7:
            uc.context_restore(uc.context_save())
        elif act == 8 and self.rare:
            uc.mem_map(DATA + ROOM, PAGE)
            uc.mem_unmap(DATA + ROOM, PAGE)

    def _read_device(self, uc: Any, offset: int, size: int, _data: Any) -> int:
        self._note(uc, "device read", offset, size)
        return self._rng.randrange(1 << 8 * size)

    def _write_device(self, uc: Any, offset: int, size: int, value: int, _data: Any) -> None:
        self._note(uc, "device write", offset, size, value)
