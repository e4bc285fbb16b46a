/* ARM: the Thumb state, and IT blocks. Included by _hot.c.
 *
 * Unicorn does not call the hook for an instruction of an IT block whose condition fails, and cannot be stopped between
 * the instructions of an IT block. Both are made up for: what was passed over is looked at and counted, one by one,
 * when the next hook comes (nothing has happened in between); and a stop inside an IT block leaves as the emulator's own
 * exceptions do, by the jump buffer of its loop.
 */
#include <setjmp.h>

static int obstacle(Core *c, uint64_t addr);

static inline int in_thumb(const Core *c)
{
    return c->arm && *c->thumb;
}

/* ITSTATE behind one more instruction. */
static inline uint8_t it_advance(uint8_t it)
{
    return it & 7 ? (uint8_t)((it & 0xe0) | (it << 1 & 0x1f)) : 0;
}

static inline uint32_t thumb_length(const uint8_t *b)
{
    return b[1] >= 0xe8 ? 4 : 2;
}

/* Length of the Thumb instruction at addr; 0 where there is none. */
static uint32_t thumb_length_at(Core *c, uint64_t addr, uint8_t *b)
{
    if (copy_code(c, addr, b, 2) != 2)
        return 0;
    uint32_t n = thumb_length(b);
    return n == 2 || copy_code(c, addr, b, n) == n ? n : 0;
}

/* An access goes on for which Unicorn has brought the state up to date. Within a block it keeps ITSTATE at zero, and
 * writes it at the block's end only if that lies inside an IT block: what it has put there now would stay. */
static inline void it_hide(Core *c)
{
    if (c->arm)
        *c->condexec = 0;
}

/* A block begins: it may do so inside an IT block. */
static inline void it_begin(Core *c, uint64_t addr)
{
    c->it = *c->condexec;
    c->it_at = addr;
    c->it_held = 0;
}

/* The instruction at addr was counted. */
static inline void it_follow(Core *c, uint64_t addr, uint32_t size, const uint8_t *b)
{
    c->last_it = c->it;
    if (c->it)
        c->it = it_advance(c->it);
    else if (size == 2 && b && b[1] == 0xbf && b[0] & 15)
        c->it = b[0];
    c->it_at = addr + size;
}

/* Whether an IT block begins in a block of Thumb code: not all of its instructions have hooks then. */
static int it_inside(Core *c, uint64_t addr, uint32_t size)
{
    uint8_t b[4];
    for (uint64_t at = addr; at - addr < size;) {
        uint32_t n = thumb_length_at(c, at, b);
        if (!n || (n == 2 && b[1] == 0xbf && b[0] & 15))
            return 1;
        at += n;
    }
    return 0;
}

/* Count what the IT block under way has passed over before addr. Nonzero if the run must stop at one of those. */
static int it_catch_up(Core *c, uint64_t addr)
{
    uint8_t b[4], it = c->it;
    uint64_t at = c->it_at;
    while (it && at != addr) {
        uint32_t n = thumb_length_at(c, at, b);
        if (!n)
            break;
        at += n;
        it = it_advance(it);
    }
    c->it_held = at == addr && it;
    if (at != addr)
        c->it = 0; /* left by a branch */
    while (c->it && c->it_at != addr) {
        uint32_t n = thumb_length_at(c, c->it_at, b);
        int reason = R_NONE;
        if (c->it_at - c->seen >= c->seen_size)
            note_code(c, c->it_at, n);
        if (c->icount >= c->limit || c->interrupt || c->points)
            reason = obstacle(c, c->it_at);
        if (reason == R_NONE && c->block_size && c->it_at - c->block + n <= c->block_size &&
            memcmp(b, c->block_bytes + (c->it_at - c->block), n) != 0)
            reason = R_SMC;
        if (reason != R_NONE) {
            stop(c, reason, c->it_at);
            return 1;
        }
        c->last_pc = c->it_at;
        c->last_size = n;
        c->icount++;
        it_follow(c, c->it_at, n, NULL);
    }
    return 0;
}

/* After a stop inside an IT block, from within the hook of one of its instructions: nothing else ends the block here. */
static inline void it_leave(Core *c)
{
    if (c->stopped && c->it_held)
        siglongjmp(*c->jump, 1);
}

/* A store to nothing: Unicorn would end the block behind it, and so run the rest of an IT block first. */
static inline void it_fault(Core *c, int type)
{
    if (c->arm && c->last_it && type == UC_MEM_WRITE_UNMAPPED) {
        c->it_error = UC_ERR_WRITE_UNMAPPED;
        c->emu_stop(c->uc);
        siglongjmp(*c->jump, 1);
    }
}

/* A store is refused, and the state is up to date: inside an IT block Unicorn would go on to its end. */
static inline void it_refuse(Core *c, int store)
{
    if (c->arm && store) {
        c->emu_stop(c->uc);
        siglongjmp(*c->jump, 1);
    }
}

/* A run has ended: with a stop, where the hooks said; else count what was passed over on the way there. */
static void it_settle(Core *c)
{
    if (c->it_error) {
        c->error = c->it_error;
        *c->arm_pc = (uint32_t)c->last_pc;
        *c->condexec = c->last_it;
        return;
    }
    if (!c->stopped && c->it && *c->arm_pc != c->last_pc && it_catch_up(c, *c->arm_pc)) {
        c->error = 0;
        c->exception = -1;
    }
    if (c->stopped) {
        *c->arm_pc = (uint32_t)c->pc;
        *c->condexec = c->it;
    }
}
