/* Polls virtio disks: reads accounts from the first one, posts them to the second one, and reads both again.
 *
 * The first disk holds words; those of sector n % SECTORS are posted in round n. A word of 0xbad is the bad one that the
 * debugging tests look for: which read has brought it into `account`? With one disk, that is both.
 */
#include "guest.h"

#ifndef ROUNDS
#define ROUNDS 40
#endif
#ifndef WORK
#define WORK 200 /* turns of a loop between two rounds */
#endif
#ifndef SECTORS
#define SECTORS 256
#endif
#define WORDS 128

#if defined(__riscv)
#define FIRST_SLOT 0x10001000ul
#define STRIDE 0x1000ul
#define SLOTS 8
#else
#define FIRST_SLOT 0x0a000000ul
#define STRIDE 0x200ul
#define SLOTS 32
#endif

#define QUEUE 8
enum { READ = 0, WRITE = 1, FLUSH = 4, NAME = 8 };

struct descriptor {
    u64 address;
    u32 length;
    u16 flags, next;
};

struct disk {
    struct descriptor table[QUEUE] __attribute__((aligned(16)));
    struct {
        u16 flags, index, ring[QUEUE];
    } available __attribute__((aligned(2)));
    struct {
        u16 flags, index;
        struct {
            u32 head, length;
        } ring[QUEUE];
    } used __attribute__((aligned(4)));
    struct {
        u32 type, reserved;
        u64 sector;
    } header;
    u8 status;
    uptr slot;
    u32 sectors;
};

static struct disk disks[2];
static u32 buffer[WORDS];
volatile u32 account;
volatile u32 round_number;
volatile u32 sum = 2166136261u;

static volatile u32 *reg(const struct disk *d, u32 offset)
{
    return (volatile u32 *)(d->slot + offset);
}

static void set_address(const struct disk *d, u32 offset, const volatile void *address)
{
    u64 value = (uptr)address;
    *reg(d, offset) = (u32)value;
    *reg(d, offset + 4) = (u32)(value >> 32);
}

static void set_up(struct disk *d, uptr slot)
{
    d->slot = slot;
    *reg(d, 0x70) = 0;
    *reg(d, 0x70) = 1 | 2;
    *reg(d, 0x24) = 1;
    *reg(d, 0x20) = 1; /* version 1, and nothing else */
    *reg(d, 0x24) = 0;
    *reg(d, 0x20) = 0;
    *reg(d, 0x70) = 1 | 2 | 8;
    *reg(d, 0x30) = 0;
    *reg(d, 0x38) = QUEUE;
    set_address(d, 0x80, d->table);
    set_address(d, 0x90, &d->available);
    set_address(d, 0xa0, &d->used);
    *reg(d, 0x44) = 1;
    *reg(d, 0x70) = 1 | 2 | 8 | 4;
    d->sectors = *reg(d, 0x100);
}

NOINLINE u8 transfer(struct disk *d, u32 type, u32 sector, void *data, u32 bytes)
{
    volatile u16 *used = &d->used.index;
    u16 before = *used;
    u16 last = bytes ? 2 : 1;
    d->header.type = type;
    d->header.sector = sector;
    d->status = 0xff;
    d->table[0] = (struct descriptor){(uptr)&d->header, 16, 1, 1};
    d->table[1] = (struct descriptor){(uptr)data, bytes, (u16)(1 | (type == WRITE ? 0 : 2)), 2};
    d->table[last] = (struct descriptor){(uptr)&d->status, 1, 2, 0};
    d->available.ring[d->available.index % QUEUE] = 0;
    __sync_synchronize();
    d->available.index++;
    __sync_synchronize();
    *reg(d, 0x50) = 0; /* the notification */
    while (*used == before)
        BARRIER();
    __sync_synchronize();
    return *(volatile u8 *)&d->status;
}

static u32 find(void)
{
    u32 found = 0;
    for (u32 i = SLOTS; i-- > 0 && found < 2;) {
        uptr slot = FIRST_SLOT + i * STRIDE;
        if (*(volatile u32 *)slot == 0x74726976 && *(volatile u32 *)(slot + 4) == 2 && *(volatile u32 *)(slot + 8) == 2)
            set_up(&disks[found++], slot);
    }
    return found;
}

NOINLINE void post(u32 value)
{
    account = value; /* the post */
    sum = mix(sum, value);
}

static void run_round(struct disk *from, struct disk *to)
{
    u32 sector = round_number % SECTORS;
    sum = mix(sum, transfer(from, READ, sector % from->sectors, buffer, sizeof buffer)); /* the read */
    for (u32 i = 0; i < WORDS; i++) {
        post(buffer[i]);
        buffer[i] = buffer[i] * 3 + round_number;
    }
    sum = mix(sum, transfer(to, WRITE, sector * 7 % to->sectors, buffer, sizeof buffer));
    sum = mix(sum, transfer(to, READ, (sum & 0xffff) % to->sectors, buffer, sizeof buffer));
    for (u32 i = 0; i < WORDS; i++)
        sum = mix(sum, buffer[i]);
    for (u32 i = 0; i < WORK; i++)
        sum = mix(sum, i);
}

int main(void)
{
    u32 found = find();
    if (!found) {
        put_string("disks: none\n");
        power_off(1);
    }
    struct disk *to = &disks[found - 1];
    for (round_number = 0; round_number < ROUNDS; round_number++)
        run_round(&disks[0], to);
    sum = mix(sum, transfer(to, WRITE, to->sectors, buffer, sizeof buffer)); /* one too far: it fails */
    sum = mix(sum, transfer(to, FLUSH, 0, buffer, 0));
    for (u32 sector = 0; sector < to->sectors && sector < 2 * SECTORS; sector++) {
        transfer(to, READ, sector, buffer, sizeof buffer);
        for (u32 i = 0; i < WORDS; i++)
            sum = mix(sum, buffer[i]);
    }
    put_checksum("disks", sum);
    power_off(0);
}
