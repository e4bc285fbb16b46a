/* Threads, system calls, pages on demand. The kernel itself is never interrupted but while it idles. */
#include "kernel.h"

enum { WORKER_0, WORKER_1, PROBER, ECHOER, IDLE, THREADS };

struct thread threads[THREADS];
struct thread *current;
volatile u32 ticks, switches;
u32 calls, demanded, touched, flips, races, killed;
static char *next_page = __pages;
static u8 received[64];
static u32 received_in, received_out;

static void put(const char *text)
{
    for (; *text; text++)
        uart_put(*text);
}

static void put_number(u32 value)
{
    char text[12], *at = text + sizeof text - 1;
    *at = 0;
    do
        *--at = (char)('0' + value % 10);
    while (value /= 10);
    put(at);
}

static void put_hex(uptr value)
{
    put("0x");
    for (int shift = 28; shift >= 0; shift -= 4)
        uart_put("0123456789abcdef"[value >> shift & 15]);
}

void panic(const char *what, uptr value)
{
    put("panic: ");
    put(what);
    put(" ");
    put_hex(value);
    put("\n");
    power_off();
}

void *page_new(void)
{
    char *page = next_page;
    if (page == __pages_end)
        panic("no page left", 0);
    next_page += PAGE;
    return page; /* of zeros, as RAM is at the start: nothing is given back */
}

/* A variable of user.c, as the kernel sees RAM. */
static u32 of_user(const volatile u32 *variable)
{
    return *(volatile u32 *)(__user_data_stored + ((const volatile char *)variable - __user_data));
}

static void finish(void)
{
    const char *names[] = {"ticks ", ", switches ", ", calls ", ", demanded ", ", touched ", ", flips ", ", races "};
    u32 values[] = {ticks, switches, calls, demanded, touched, flips, races};
    for (u32 i = 0; i < sizeof values / sizeof *values; i++) {
        put(names[i]);
        put_number(values[i]);
    }
    put("\nresults ");
    put_hex(threads[WORKER_0].result);
    put(" ");
    put_hex(threads[WORKER_1].result);
    put(" ");
    put_hex(of_user(&mailbox));
    put(", counter ");
    put_number(of_user(&counter));
    put("\nbye\n");
    power_off();
}

/* The next thread that can run, behind the current one; the idle one if none can. */
static struct frame *schedule(void)
{
    struct thread *next = &threads[IDLE];
    u32 here = (u32)(current - threads), alive = 0;
    if (here == IDLE)
        here = IDLE - 1;
    for (u32 i = IDLE; i >= 1; i--) {
        struct thread *candidate = &threads[(here + i) % IDLE];
        if (candidate->state == READY)
            next = candidate;
        alive += candidate->state != DEAD;
    }
    if (!alive)
        finish();
    if (next != current) {
        switches++;
        space_use(&next->space);
        current = next;
    }
    return &next->frame;
}

struct frame *timer_tick(void)
{
    ticks++;
    timer_again();
    for (u32 i = 0; i < IDLE; i++)
        if (threads[i].state == ASLEEP && ticks >= threads[i].wake)
            threads[i].state = READY;
    return schedule();
}

struct frame *uart_received(int c)
{
    received[received_in++ % sizeof received] = (u8)c;
    if (threads[ECHOER].state == READING)
        threads[ECHOER].state = READY;
    return &current->frame;
}

static void kill_current(void)
{
    current->state = DEAD;
    killed++;
}

struct frame *system_call(struct frame *frame)
{
    uptr a = frame_argument(frame, 0), b = frame_argument(frame, 1);
    calls++;
    switch (frame_number(frame)) {
    case CALL_WRITE:
        user_access(1);
        for (uptr i = 0; i < b; i++)
            uart_put(((volatile char *)a)[i]);
        user_access(0);
        return frame;
    case CALL_YIELD:
        return schedule();
    case CALL_SLEEP:
        current->state = ASLEEP;
        current->wake = ticks + (u32)a;
        return schedule();
    case CALL_GETC:
        if (received_in == received_out) {
            current->state = READING; /* and asks again when it runs */
            frame_result(frame, (uptr)-1);
            return schedule();
        }
        frame_result(frame, received[received_out++ % sizeof received]);
        return frame;
    case CALL_FLIP: {
        entry *e = space_entry(&current->space, FLIP);
        flips++;
        current->flipped ^= 1;
        *e = entry_move(*e, (uptr)__pages + current->flipped * PAGE);
        page_forget(&current->space, FLIP);
        return frame;
    }
    case CALL_CODE:
        code_changed(a);
        return frame;
    case CALL_REPORT:
        races++;
        put("race: counter ");
        put_number((u32)a);
        put(", counted ");
        put_number((u32)b);
        put(", tick ");
        put_number(ticks);
        put("\n");
        return frame;
    case CALL_EXIT:
        current->result = (u32)a;
        current->state = DEAD;
        return schedule();
    default:
        panic("system call", frame_number(frame));
    }
}

struct frame *page_fault(struct frame *frame, uptr address, enum access access)
{
    entry *e = space_entry(&current->space, address);
    if (e && entry_present(*e) && entry_touch(e)) {
        touched++;
        page_forget(&current->space, address);
        return frame;
    }
    int stack = address >= STACK_TOP - STACK_PAGES * PAGE && address < STACK_TOP;
    int arena = address >= ARENA && address < ARENA + ARENA_PAGES * PAGE;
    if ((stack || arena) && access != FETCH && !(e && entry_present(*e))) {
        demanded++;
        space_map(&current->space, address & ~(uptr)(PAGE - 1), (uptr)page_new(), USER_DATA);
        return frame;
    }
    put("killed: thread ");
    put_number((u32)(current - threads));
    put(access == FETCH ? " fetches at " : access == LOAD ? " loads from " : " stores to ");
    put_hex(address);
    put("\n");
    kill_current();
    return schedule();
}

static void thread_start(u32 number, uptr pc, uptr argument)
{
    struct thread *thread = &threads[number];
    thread->space = (struct space){kernel_root(), number + 1};
    for (uptr at = 0; at < (uptr)(__user_text_end - __user_text); at += PAGE)
        space_map(&thread->space, (uptr)__user_text + at, (uptr)__user_text_stored + at, USER_TEXT);
    space_map(&thread->space, (uptr)__user_data, (uptr)__user_data_stored, USER_DATA);
    space_map(&thread->space, USER_ALIAS, (uptr)__user_data_stored, USER_DATA);
    space_map(&thread->space, FLIP, (uptr)__pages, USER_DATA);
    space_map(&thread->space, CODE, (uptr)__pages + 2 * PAGE, USER_TEXT);
    space_map(&thread->space, CODE_ALIAS, (uptr)__pages + 2 * PAGE, USER_DATA);
    frame_start(&thread->frame, pc, STACK_TOP, argument, 1);
    thread->state = READY;
}

static void idle(void)
{
    for (;;)
        wait_for_interrupt();
}

void kernel(void)
{
    put("kernel on ");
    put(cpu_name);
    put("\n");
    page_new(), page_new(); /* the two of FLIP, */
    page_new();             /* and that of CODE */
    thread_start(WORKER_0, (uptr)worker, 0);
    thread_start(WORKER_1, (uptr)worker, 1);
    thread_start(PROBER, (uptr)prober, 2);
    thread_start(ECHOER, (uptr)echoer, 3);
    threads[IDLE].space = (struct space){kernel_root(), IDLE + 1};
    frame_start(&threads[IDLE].frame, (uptr)idle, (uptr)__idle_stack_top, 0, 0);
    current = &threads[WORKER_0];
    machine_start();
    space_use(&current->space);
    resume(&current->frame);
}
