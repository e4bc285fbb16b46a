struct frame {
    uptr r[13], sp, lr, pc, cpsr;
};
typedef u32 entry;

static inline uptr frame_number(const struct frame *frame) { return frame->r[7]; }
static inline uptr frame_argument(const struct frame *frame, int i) { return frame->r[i]; }
static inline void frame_result(struct frame *frame, uptr value) { frame->r[0] = value; }
static inline entry entry_move(entry e, uptr physical) { return (e & 0xfff) | physical; }
static inline void code_returning(volatile u32 *at, u32 n) { at[0] = 0xe3a00000 | n, at[1] = 0xe12fff1e; }
static inline void wait_for_interrupt(void) { __asm__ volatile("wfi"); }
