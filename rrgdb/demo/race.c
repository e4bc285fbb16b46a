/* The program of `rrgdb demo`: a race whose result list gets lost.
 *
 * Runners pass the line; their lap times come from a timer of 100 MHz with a coarse sensor. Each runner's best laps
 * are kept, fastest first. When the race is over, the results are printed from the list of runners. Now and then
 * that crashes.
 *
 * Bare x86-64 in flat 64-bit mode: serial port at 0x3f8, power-off by a byte to port 0xf4.
 */

#define RUNNERS 12
#define LAPS 4000
#define KEPT 4
#define NO_TIME 0xffffffffu

struct runner {
    unsigned number;
    unsigned laps;
    unsigned best[KEPT]; /* lap times in ticks, fastest first */
    struct runner *next;
};

static struct runner field[RUNNERS];
static unsigned noise = 16;

static void put_char(char c)
{
    __asm__ volatile("outb %0, %1" : : "a"(c), "Nd"((unsigned short)0x3f8));
}

static void put_text(const char *text)
{
    while (*text)
        put_char(*text++);
}

static void put_number(unsigned value)
{
    if (value > 9)
        put_number(value / 10);
    put_char((char)('0' + value % 10));
}

static void power_off(void)
{
    __asm__ volatile("outb %0, %1" : : "a"((char)0), "Nd"((unsigned short)0xf4));
    for (;;)
        __asm__ volatile("hlt");
}

static unsigned lap_time(void)
{
    noise = noise * 1103515245u + 12345u;
    return 3000000000u + (noise >> 16) % 62000 * 0x4000;
}

static struct runner *line_up(void)
{
    struct runner *first = 0;
    for (unsigned i = RUNNERS; i > 0; i--) {
        struct runner *r = &field[i - 1];
        r->number = i;
        r->laps = 0;
        for (unsigned place = 0; place < KEPT; place++)
            r->best[place] = NO_TIME;
        r->next = first;
        first = r;
    }
    return first;
}

static void keep_best(struct runner *r, unsigned time)
{
    unsigned place = 0;
    if (time > r->best[KEPT - 1])
        return;
    while (place < KEPT && r->best[place] <= time)
        place++;
    for (unsigned i = KEPT - 1; i > place; i--)
        r->best[i] = r->best[i - 1];
    r->best[place] = time;
}

static void lap(struct runner *r)
{
    r->laps++;
    keep_best(r, lap_time());
}

static void race(void)
{
    for (unsigned i = 0; i < LAPS; i++)
        for (unsigned n = 0; n < RUNNERS; n++)
            lap(&field[n]);
}

static unsigned results(struct runner *first)
{
    unsigned printed = 0;
    struct runner *before = 0;
    for (struct runner *r = first; r; r = r->next) {
        put_text("runner ");
        put_number(r->number);
        put_text(": best lap ");
        put_number(r->best[0]);
        put_text(" ticks\n");
        before = r;
        printed++;
    }
    return before ? printed : 0;
}

int main(void)
{
    struct runner *first = line_up();
    put_text("the race is on\n");
    race();
    put_text("the race is over\n");
    results(first);
    power_off();
    return 0;
}

__asm__(".section .text.start, \"ax\"\n"
        ".globl _start\n"
        "_start:\n"
        " mov $stack_top, %rsp\n"
        " call main\n"
        ".bss\n"
        ".balign 4096\n"
        " .skip 8192\n"
        "stack_top:\n"
        ".text\n");
