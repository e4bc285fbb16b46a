struct frame {
    uptr x[31], sp, pc, pstate;
};
typedef u64 entry;

static inline uptr frame_number(const struct frame *frame) { return frame->x[8]; }
static inline uptr frame_argument(const struct frame *frame, int i) { return frame->x[i]; }
static inline void frame_result(struct frame *frame, uptr value) { frame->x[0] = value; }
static inline entry entry_move(entry e, uptr physical) { return (e & ~0xfffffff000ull) | physical; }
static inline void code_returning(volatile u32 *at, u32 n) { at[0] = 0x52800000 | n << 5, at[1] = 0xd65f03c0; }
static inline void wait_for_interrupt(void) { __asm__ volatile("wfi"); }
