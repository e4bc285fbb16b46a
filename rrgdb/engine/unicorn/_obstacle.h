/* What stops a run before an instruction, whatever that is. */
#pragma once
#include "_agent.h"
#include "_core.h"
#include "_points.h"
#include "_watch.h"

/* What keeps the CPU from going on at this position; R_NONE: nothing. */
static int obstacle(Core *c, uint64_t addr)
{
    if (c->watch_count && watches_astray(c))
        return R_FIND;
    if (c->watch_count && watches_hit(c))
        return R_WATCHPOINT;
    if (c->icount >= c->limit)
        return R_LIMIT;
    if (c->interrupt)
        return R_INTERRUPT;
    if (c->icount == c->skip)
        return R_NONE;
    if (c->range_on && (addr < c->range_start || addr >= c->range_end))
        return R_RANGE;
    const bp_entry *point = breakpoint_at(c, addr);
    c->asked_page = NO_PC;
    int holds = point ? point_holds(c, point, addr) : AGENT_FALSE;
    if (holds == AGENT_ASK && c->asked_page != NO_PC)
        return R_LEARN;
    if (holds == AGENT_ASK || (holds == AGENT_TRUE && !c->collect))
        return R_BREAKPOINT;
    if (holds == AGENT_TRUE)
        c->bp_last = c->icount;
    return R_NONE;
}
