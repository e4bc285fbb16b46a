/* x86: what the mode of the CPU means for a run: the base of the code segment, the size of code, the resume flag. Included
 * by _hot.c.
 *
 * Addresses of code are linear, here and in all of the engine; Unicorn's program counter alone counts from the base of the
 * code segment.
 *
 * RF stands for one instruction: the one behind the IRET that has set it. Unicorn clears it at the end of some blocks. So a
 * run that begins with RF ends behind its first instruction and clears it, and behind what loads flags from memory a new
 * run begins.
 *
 * A guest's own breakpoints, in the debug registers, are looked at here: Unicorn would keep them outside the state.
 */

#define X86_RF (1u << 16)
#define X86_CS32 (1u << 4)  /* of Unicorn's flags of the mode (hflags) */
#define X86_CS64 (1u << 15)

static int x86_opcode(const Core *c, const uint8_t *b, int n);

static void x86_look(Core *c)
{
    uint32_t modes;
    if (!c->x86 || c->segment_at < 0)
        return;
    c->context_save(c->uc, c->context);
    memcpy(&c->code_base, c->context + CONTEXT_HEADER + c->segment_at + 8, sizeof c->code_base);
    memcpy(&modes, c->context + CONTEXT_HEADER + c->modes_at, sizeof modes);
    c->other_size = !(modes & (c->mode64 ? X86_CS64 : X86_CS32));
}

static uint64_t linear(Core *c, uint64_t pc)
{
    x86_look(c);
    return c->x86 && !c->mode64 ? (uint32_t)(c->code_base + pc) : c->code_base + pc;
}

static uint64_t x86_flags(Core *c)
{
    uint64_t flags = 0;
    c->reg_read(c->uc, c->eflags_id, &flags);
    return flags;
}

static void x86_clear_rf(Core *c)
{
    uint64_t flags = x86_flags(c);
    if (!(flags & X86_RF))
        return;
    flags &= ~(uint64_t)X86_RF;
    c->reg_write(c->uc, c->eflags_id, &flags);
}

/* RF stays where nothing has retired, and is new behind a far transfer; but SYSRET clears it, which Unicorn does not. */
static void x86_end_run(Core *c)
{
    int done = c->resumed && c->icount != c->run_icount && c->icount != c->far_icount && c->exception < 0 && !c->error;
    if (done || (c->reason == R_FAR && c->far_sysret))
        x86_clear_rf(c);
    c->resumed &= !done;
}

static void x86_look_at_debug(Core *c)
{
    uint64_t control = 0;
    c->guest_points = 0;
    if (!c->x86 || c->bare)
        return;
    c->reg_read(c->uc, c->debug_id + 7, &control);
    if (!(control & 0xff))
        return;
    c->debug[7] = control;
    c->guest_points = 1;
    for (int i = 0; i < 4; i++) {
        c->debug[i] = 0;
        c->reg_read(c->uc, c->debug_id + i, &c->debug[i]);
    }
}

/* Bits of DR6: those of the guest's breakpoints that stand here and are on. Not behind a return that has set RF. */
static unsigned x86_guest_points_at(const Core *c, uint64_t addr)
{
    unsigned hit = 0;
    if (c->resumed && c->icount == c->run_icount)
        return 0;
    for (int i = 0; i < 4; i++)
        if (c->debug[7] >> 2 * i & 3 && !(c->debug[7] >> (16 + 4 * i) & 3) && c->debug[i] == addr)
            hit |= 1u << i;
    return hit;
}

/* Far transfers and returns from interrupts and system calls: they may load flags, and change the size and base of code. */
static void x86_note_far(Core *c, const uint8_t *b, int n)
{
    int i = x86_opcode(c, b, n);
    uint8_t o = i < n ? b[i] : 0, next = i + 1 < n ? b[i + 1] : 0;
    int reg = next >> 3 & 7;
    c->far_sysret = o == 0x0f && next == 0x07;
    if (o == 0xcf || o == 0xca || o == 0xcb || o == 0xea || o == 0x9a || (o == 0xff && (reg == 3 || reg == 5)) ||
        c->far_sysret || (o == 0x0f && next == 0x35))
        c->far_icount = c->icount;
}
