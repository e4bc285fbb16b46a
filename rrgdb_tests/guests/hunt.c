/* A program with a planted bug: a list of stations, each visited in many rounds, summed up at the end.
 *
 * visit() now and then is given a lane one too high and writes its stamp over the low half of `next`; the list is
 * walked only after all rounds, by recursion, and the program dies far from the culprit.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef STATIONS
#define STATIONS 12
#endif
#ifndef ROUNDS
#define ROUNDS 200
#endif
#define LANES 4

struct station {
    unsigned visits[LANES];
    struct station *next;
    double weight;
    char name[12];
};

static struct station *stations[STATIONS];
static unsigned random_state = 12345;

static unsigned next_random(void)
{
    random_state = random_state * 1103515245u + 12345u;
    return random_state >> 16;
}

static struct station *new_station(unsigned number, struct station *next)
{
    struct station *s = malloc(sizeof *s);
    memset(s, 0, sizeof *s);
    s->next = next;
    s->weight = 1.0 + number / 8.0;
    memcpy(s->name, "station-", 8);
    s->name[8] = (char)('a' + number);
    return s;
}

static struct station *build(void)
{
    struct station *head = NULL;
    for (unsigned i = STATIONS; i-- > 0;) {
        head = new_station(i, head);
        stations[i] = head;
    }
    return head;
}

__attribute__((noinline)) void visit(struct station *s, unsigned lane, unsigned stamp)
{
    s->visits[lane] = stamp; /* the culprit */
}

static void run_round(unsigned round)
{
    unsigned number = next_random() % STATIONS;
    unsigned lane = next_random() % LANES;
#ifndef FIXED
    if (round == ROUNDS / 4)
        lane = LANES; /* one too high */
#endif
    visit(stations[number], lane, 0xf1e20000u + round * 16);
}

__attribute__((noinline)) double total(const struct station *s)
{
    double here = 0.0;
    if (!s)
        return 0.0;
    for (unsigned lane = 0; lane < LANES; lane++)
        here += s->visits[lane] ? s->weight : 0.0; /* the crash */
    return here + total(s->next);
}

int main(void)
{
    struct station *head = build();
    printf("hunt: %d stations\n", STATIONS);
    for (unsigned round = 0; round < ROUNDS; round++)
        run_round(round);
    printf("hunt: %d rounds done\n", ROUNDS);
    printf("hunt: total %.3f\n", total(head));
    return 0;
}
