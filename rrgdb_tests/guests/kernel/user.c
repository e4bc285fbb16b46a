/* What runs in user mode: two workers that race for `counter`, one thread that tries pages, one that echoes. */
#include "kernel.h"

USER_VALUES volatile u32 counter;     /* the workers count here, without a lock */
USER_VALUES volatile u32 counted[2];  /* and each for itself */
USER_VALUES volatile u32 lost;        /* increments of `counter` found missing */
USER_VALUES volatile u32 mailbox;
USER_TEXTS static const char SHOWN[] = "prober: pages done\n";

USER_CODE static u32 churn(u32 random)
{
    for (u32 i = WORK + (random >> 26); i > 0; i--) {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
    }
    return random;
}

/* `counted` is summed first and only grows, as `counter` does: what is missing then has been lost. */
USER_CODE static void check(void)
{
    u32 sum = counted[0] + counted[1], now = counter;
    if ((int)(sum - now) > (int)lost) {
        lost = sum - now;
        u_syscall(CALL_REPORT, now, sum);
    }
}

USER_CODE void worker(uptr me)
{
    u32 random = 0x9e3779b9u * (u32)(me + 1);
    volatile u32 *arena = (volatile u32 *)ARENA;
    for (u32 round = 1; round <= ROUNDS; round++) {
        random = churn(random);
        counter = counter + 1; /* the race */
        counted[me]++;
        arena[(random >> 8) % (ARENA_PAGES * PAGE / 4)] += random;
        if (round % CHECK == 0)
            check();
    }
    u_syscall(CALL_EXIT, random, 0);
}

/* A function is written at one address of its page and called at the other, again and again. */
USER_CODE static u32 changing_code(void)
{
    volatile u32 *written = (volatile u32 *)CODE_ALIAS;
    u32 sum = 0;
    written[8] = 0; /* before there is any code */
    for (u32 n = 1; n <= 8; n++) {
        code_returning(written, n);
        u_syscall(CALL_CODE, CODE, 0);
        sum = sum * 31 + ((u32(*)(void))CODE)();
        sum = sum * 31 + ((u32(*)(void))CODE)();
    }
    return sum;
}

USER_CODE void prober(uptr me)
{
    volatile u32 *arena = (volatile u32 *)ARENA, *flip = (volatile u32 *)FLIP;
    volatile u32 *alias = (volatile u32 *)(USER_ALIAS + ((uptr)&mailbox & (PAGE - 1)));
    u32 sum = (u32)me;
    for (u32 i = 0; i < ARENA_PAGES; i++) {
        arena[i * (PAGE / 4)] = sum;
        *alias = sum ^ 0x5a5a5a5a; /* one address writes, */
        sum = sum * 31 + mailbox;  /* the other reads */
        *flip = sum;
        u_syscall(CALL_FLIP, 0, 0);
        sum = sum * 31 + *flip;
        if (i % 4 == 3)
            u_syscall(CALL_SLEEP, 2, 0);
        else
            u_syscall(CALL_YIELD, 0, 0);
    }
    u_syscall(CALL_WRITE, (uptr)SHOWN, sizeof SHOWN - 1);
    mailbox = sum + changing_code();
    *(volatile u32 *)WILD = sum;
    u_syscall(CALL_EXIT, 1, 0); /* never reached */
}

USER_CODE void echoer(uptr me)
{
    volatile char text[2];
    for (u32 left = INPUT; left > 0; left--) {
        uptr c;
        do
            c = u_syscall(CALL_GETC, 0, 0);
        while (c == (uptr)-1);
        text[0] = (char)c;
        u_syscall(CALL_WRITE, (uptr)text, 1);
    }
    u_syscall(CALL_EXIT, me, 0);
}
