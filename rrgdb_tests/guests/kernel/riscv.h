struct frame {
    uptr x[32]; /* x[0] holds pc */
    uptr status;
};
typedef uptr entry;

static inline uptr frame_number(const struct frame *frame) { return frame->x[17]; }
static inline uptr frame_argument(const struct frame *frame, int i) { return frame->x[10 + i]; }
static inline void frame_result(struct frame *frame, uptr value) { frame->x[10] = value; }
static inline entry entry_move(entry e, uptr physical) { return (e & 0x3ff) | physical >> 12 << 10; }
static inline void code_returning(volatile u32 *at, u32 n) { at[0] = n << 20 | 0x513, at[1] = 0x8067; }
static inline void wait_for_interrupt(void) { __asm__ volatile("wfi"); }
