/* Conditions of breakpoints, judged in the generated code.
 *
 * Where Unicorn calls the hook of a breakpoint that has a condition, the loads of the call's arguments are replaced, in place:
 *
 *     call condition              code that is made of the agent expression; zero flag: it does not hold
 *     je  behind                  past the call, and past Unicorn's look at its exit flag
 * call:
 *     call hook                   as before: the code of the condition has loaded its arguments
 *
 * Every register that Unicorn keeps in the host's is in the CPU's structure where a hook is called, and those that a hook
 * may change are free. The hook decides again whatever holds, or cannot be told here; see _agent.h for what it means.
 * Expressions that divide, shift by variables, jump back or ask for more than is known here are left to the hook.
 */
#pragma once
#include "_agent.h"
#include "_core.h"
#include "_generated.h"

#if CAN_INLINE
#include <sys/mman.h>

enum { RAX, RCX, RDX, RSI = 6, RDI, R8, R9, R10, R11 };
/* where the values of the stack are; two more serve in between */
static const uint8_t stack_registers[] = {RAX, RCX, RDX, RSI, RDI, R8, R9};
#define MOST_VALUES ((int)sizeof stack_registers)
#define MOST_JUMPS 64
#define MOST_REGIONS 8
#define HOOK_CODE_INDEX 2 /* Unicorn's number of hooks on instructions, UC_HOOK_CODE_IDX */

typedef struct {
    uint8_t *at, *end;
    struct { uint8_t *from; int to; } jumps[MOST_JUMPS]; /* displacements of 4 bytes; to: a step, or one of these: */
    int jump_count, failed;
} emitter;
enum { TO_HOLDS = -1, TO_NEXT = -2 };

static void emit_bytes(emitter *e, int n, uint64_t bytes)
{
    if (e->end - e->at < n) {
        e->failed = 1;
        return;
    }
    memcpy(e->at, &bytes, (size_t)n);
    e->at += n;
}

/* An instruction of two registers; escaped: behind 0x0f. */
static void emit_pair(emitter *e, int wide, int escaped, int op, int reg, int rm)
{
    emit_bytes(e, 1, (uint64_t)(0x40 | wide << 3 | (reg >> 3) << 2 | rm >> 3));
    if (escaped)
        emit_bytes(e, 1, 0x0f);
    emit_bytes(e, 2, (uint64_t)op | (uint64_t)(0xc0 | (reg & 7) << 3 | (rm & 7)) << 8);
}

static void emit_load(emitter *e, int reg, uint64_t value)
{
    int wide = value > UINT32_MAX;
    emit_bytes(e, 2, (uint64_t)(0x40 | wide << 3 | reg >> 3) | (uint64_t)(0xb8 | (reg & 7)) << 8);
    emit_bytes(e, wide ? 8 : 4, value);
}

static void emit_shift(emitter *e, int how, int reg, unsigned by)
{
    emit_pair(e, 1, 0, 0xc1, how, reg);
    emit_bytes(e, 1, by);
}

/* condition: as in Jcc, -1: always */
static void emit_jump(emitter *e, int condition, int to)
{
    if (condition < 0)
        emit_bytes(e, 1, 0xe9);
    else
        emit_bytes(e, 2, 0x0f | (uint64_t)(0x80 | condition) << 8);
    if (e->jump_count == MOST_JUMPS) {
        e->failed = 1;
        return;
    }
    e->jumps[e->jump_count].from = e->at;
    e->jumps[e->jump_count++].to = to;
    emit_bytes(e, 4, 0);
}

static void land(uint8_t *from, const uint8_t *to)
{
    put(from, (uint32_t)(to - from - 4));
}

/* A comparison that leaves 0 or 1. */
static void emit_compare(emitter *e, int condition, int left, int right, int op)
{
    emit_pair(e, 1, 0, op, right, left);
    emit_bytes(e, 4, 0xc3000f41 | (uint64_t)(0x90 | condition) << 16); /* setcc r11b */
    emit_pair(e, 1, 1, 0xb6, left, R11);
}

static void emit_extension(emitter *e, int is_signed, int reg, unsigned bits)
{
    if (bits == 8 || bits == 16) {
        emit_pair(e, 1, 1, (is_signed ? 0xbe : 0xb6) | (bits == 16), reg, reg);
    } else if (bits == 32) {
        emit_pair(e, is_signed, 0, is_signed ? 0x63 : 0x8b, reg, reg);
    } else if (bits < 64) {
        emit_shift(e, 4, reg, 64 - bits);
        emit_shift(e, is_signed ? 7 : 5, reg, 64 - bits);
    }
}

/* What stands at the address in a register; elsewhere than in RAM the hook decides. */
static void emit_read(const Core *c, emitter *e, int reg, unsigned size)
{
    uint8_t *done[MOST_REGIONS];
    int found = 0;
    if (c->big_endian || c->region_count > MOST_REGIONS) {
        e->failed = 1;
        return;
    }
    for (int i = 0; i < c->region_count; i++) {
        const region *r = &c->regions[i];
        if (r->size < size)
            continue;
        emit_load(e, R10, r->base);
        emit_pair(e, 1, 0, 0x89, reg, R11);
        emit_pair(e, 1, 0, 0x29, R10, R11);
        emit_load(e, R10, r->size - size);
        emit_pair(e, 1, 0, 0x39, R10, R11);
        emit_bytes(e, 2, 0x77); /* ja: not this one */
        uint8_t *other = e->at;
        emit_load(e, R10, (uintptr_t)r->host);
        emit_bytes(e, 1, (uint64_t)(0x43 | (size == 8) << 3 | (reg >> 3) << 2));
        if (size < 4)
            emit_bytes(e, 2, size == 1 ? 0xb60f : 0xb70f);
        else
            emit_bytes(e, 1, 0x8b);
        emit_bytes(e, 2, (uint64_t)(4 | (reg & 7) << 3) | 0x1a00); /* [r10 + r11] */
        emit_bytes(e, 1, 0xe9);
        done[found++] = e->at;
        emit_bytes(e, 4, 0);
        if (e->failed)
            return;
        other[-1] = (uint8_t)(e->at - other);
    }
    emit_jump(e, -1, TO_HOLDS);
    for (int i = 0; i < found; i++)
        land(done[i], e->at);
}

/* One that registers_in_place has found. */
static void emit_register(const Core *c, emitter *e, int reg, uint64_t number)
{
    const agent_register *r = &c->registers[number];
    if (r->id == REGISTER_ZERO) {
        emit_load(e, reg, 0);
        return;
    }
    emit_bytes(e, 2, (uint64_t)(0x40 | (r->bits == 64) << 3 | (reg >> 3) << 2) | 0x8b00); /* mov reg, [rbp + place] */
    emit_bytes(e, 1, (uint64_t)(0x85 | (reg & 7) << 3));
    emit_bytes(e, 4, (uint32_t)r->place);
}

/* One step, with depth values on the stack; returns how many there are behind it. */
static int emit_step(const Core *c, emitter *e, const agent_step *s, int depth)
{
    static const uint8_t operations[] = {[A_ADD] = 0x01, [A_SUB] = 0x29, [A_BIT_AND] = 0x21, [A_BIT_OR] = 0x09, [A_BIT_XOR] = 0x31};
    int top = depth ? stack_registers[depth - 1] : RAX, below = depth > 1 ? stack_registers[depth - 2] : RAX;
    switch (s->op) {
    case A_CONST8: case A_CONST16: case A_CONST32: case A_CONST64: case A_REG: case A_DUP:
        if (depth == MOST_VALUES) {
            e->failed = 1;
            return depth;
        }
        if (s->op == A_REG)
            emit_register(c, e, stack_registers[depth], s->operand);
        else if (s->op == A_DUP)
            emit_pair(e, 1, 0, 0x89, top, stack_registers[depth]);
        else
            emit_load(e, stack_registers[depth], s->operand);
        return depth + 1;
    case A_ADD: case A_SUB: case A_BIT_AND: case A_BIT_OR: case A_BIT_XOR:
        emit_pair(e, 1, 0, operations[s->op], top, below);
        return depth - 1;
    case A_MUL: emit_pair(e, 1, 1, 0xaf, below, top); return depth - 1;
    case A_EQUAL: emit_compare(e, 4, below, top, 0x39); return depth - 1;
    case A_LESS_SIGNED: emit_compare(e, 0xc, below, top, 0x39); return depth - 1;
    case A_LESS_UNSIGNED: emit_compare(e, 2, below, top, 0x39); return depth - 1;
    case A_LOG_NOT: emit_compare(e, 4, top, top, 0x85); return depth;
    case A_BIT_NOT: emit_pair(e, 1, 0, 0xf7, 2, top); return depth;
    case A_EXT: case A_ZERO_EXT: emit_extension(e, s->op == A_EXT, top, (unsigned)s->operand); return depth;
    case A_REF8: case A_REF16: case A_REF32: case A_REF64: emit_read(c, e, top, 1u << (s->op - A_REF8)); return depth;
    case A_POP: return depth - 1;
    case A_SWAP: emit_pair(e, 1, 0, 0x87, top, below); return depth;
    case A_IF_GOTO:
        emit_pair(e, 1, 0, 0x85, top, top);
        emit_jump(e, 5, (int)s->operand);
        return depth - 1;
    case A_GOTO: emit_jump(e, -1, (int)s->operand); return depth;
    case A_END:
        emit_pair(e, 1, 0, 0x85, top, top);
        emit_jump(e, 5, TO_HOLDS);
        emit_jump(e, -1, TO_NEXT);
        return depth;
    default: e->failed = 1; return depth;
    }
}

/* One expression: on to what follows if it is zero. */
static void emit_expression(const Core *c, emitter *e, const agent_code *code)
{
    int depths[AGENT_CODE + 1], depth = 0, first = e->jump_count;
    uint8_t *places[AGENT_CODE + 1];
    for (uint32_t i = 0; i <= code->count; i++)
        depths[i] = -1;
    for (uint32_t i = 0; i < code->count && !e->failed; i++) {
        const agent_step *s = &code->steps[i];
        places[i] = e->at;
        if (depth < 0)
            depth = depths[i];
        if (depth < 0)
            continue; /* nothing leads there */
        if ((depths[i] >= 0 && depths[i] != depth) || depth < s->needs) {
            e->failed = 1;
            return;
        }
        depth = emit_step(c, e, s, depth);
        if (s->op == A_GOTO || s->op == A_IF_GOTO) {
            if (s->operand <= i || (depths[s->operand] >= 0 && depths[s->operand] != depth)) {
                e->failed = 1;
                return;
            }
            depths[s->operand] = depth;
        }
        if (s->op == A_GOTO || s->op == A_END)
            depth = -1;
    }
    if (e->failed)
        return;
    int kept = first;
    for (int i = first; i < e->jump_count; i++) {
        if (e->jumps[i].to == TO_HOLDS)
            e->jumps[kept++] = e->jumps[i];
        else
            land(e->jumps[i].from, e->jumps[i].to == TO_NEXT ? e->at : places[e->jumps[i].to]);
    }
    e->jump_count = kept;
}

/* What replaces the loads of a site: all but its call. */
static void judged_bytes(const judged *j, uint8_t *out)
{
    const uint8_t *begin = j->end - j->length;
    out[0] = 0xe8;
    put(out + 1, from(begin + 5, j->hook->conditions[j->all]));
    out[5] = 0x74;
    out[6] = (uint8_t)(j->length + j->behind - 7);
    memset(out + 7, 0x90, j->length - j->call - 7u);
}

/* The hooks judge all conditions again. */
static void forget_conditions(Core *c)
{
    uint8_t bytes[SITE_BYTES];
    for (uint32_t i = 0; i < c->judged_count; i++) {
        const judged *j = &c->judged[i];
        uint32_t loads = (uint32_t)(j->length - j->call);
        judged_bytes(j, bytes);
        if (memcmp(j->end - j->length, bytes, loads) == 0)
            memcpy(j->end - j->length, j->original, loads);
    }
    c->judged_count = c->conditions_used = 0;
    for (int i = 0; i < MAX_POINT_HOOKS; i++) {
        c->point_hooks[i].conditions[0] = c->point_hooks[i].conditions[1] = NULL;
        c->point_hooks[i].left_to_hook = 0;
    }
}

/* Code of all that a breakpoint asks, behind what is there already; NULL: the hook decides. all: the call that follows is
 * that of all hooks. */
static const uint8_t *compile_condition(Core *c, const point_hook *h, const bp_entry *point, uint32_t size, int all)
{
    uint8_t *begin = c->near->conditions + c->conditions_used, *end = c->near->conditions + sizeof c->near->conditions;
    if (mprotect(c->near->conditions, sizeof c->near->conditions, PROT_READ | PROT_WRITE))
        return NULL;
    emitter e = {.at = begin, .end = end};
    if (c->family->restore_flags) { /* as the hook does */
        emit_load(&e, R10, (uintptr_t)&c->hooked_pc);
        emit_load(&e, R11, h->addr);
        emit_bytes(&e, 3, 0x1a894d); /* mov [r10], r11 */
    }
    for (const agent_code *code = point->codes; code && !e.failed; code = code->next)
        emit_expression(c, &e, code);
    emit_pair(&e, 0, 0, 0x31, RAX, RAX);
    emit_bytes(&e, 1, 0xc3);
    if (!e.failed)
        for (int i = 0; i < e.jump_count; i++)
            land(e.jumps[i].from, e.at);
    emit_load(&e, RDI, all ? size : (uintptr_t)c->uc);
    emit_load(&e, RSI, all ? HOOK_CODE_INDEX : h->addr);
    emit_load(&e, RDX, all ? (uintptr_t)c->uc : size);
    emit_load(&e, RCX, all ? h->addr : (uintptr_t)h);
    emit_pair(&e, 0, 0, 0x31, RAX, RAX);
    emit_pair(&e, 0, 0, 0xff, 0, RAX); /* inc eax: not zero */
    emit_bytes(&e, 1, 0xc3);
    if (mprotect(c->near->conditions, sizeof c->near->conditions, PROT_READ | PROT_EXEC))
        forget_conditions(c);
    else if (!e.failed)
        c->conditions_used = (uint32_t)(e.at - c->near->conditions);
    return c->conditions_used > begin - c->near->conditions ? begin : NULL;
}

/* Whether the registers that a breakpoint asks for are where they were found to be: only those of 32 and 64 bits were looked
 * for. */
static int registers_in_place(const Core *c, const bp_entry *point)
{
    for (const agent_code *code = point->codes; code; code = code->next)
        for (uint32_t i = 0; i < code->count; i++) {
            const agent_step *s = &code->steps[i];
            uint8_t buffer[64] = {0};
            if (s->op != A_REG || c->registers[s->operand].id == REGISTER_ZERO)
                continue;
            const agent_register *r = &c->registers[s->operand];
            if (r->place < 0)
                return 0;
            c->reg_read(c->uc, r->id, buffer);
            if (memcmp(buffer, c->at_hand + r->place, r->bits / 8) != 0)
                return 0;
        }
    return 1;
}

/* The loads of the arguments of Unicorn's function that calls all hooks of the instruction, where there are several in the
 * engine; returns how many bytes they are. */
static uint32_t loads_for_all(const Core *c, uint64_t addr, uint32_t size, uint8_t *out)
{
    const uint64_t uc = (uintptr_t)c->uc;
    uint8_t *o = out;
    *o++ = 0xbf; /* mov edi, size */
    o = put(o, size);
    *o++ = 0xbe; /* mov esi, type */
    o = put(o, HOOK_CODE_INDEX);
    *o++ = 0x48; /* movabs rdx, uc */
    *o++ = 0xba;
    memcpy(o, &uc, 8);
    o += 8;
    if (addr >> 32) {
        *o++ = 0x48; /* movabs rcx, addr */
        *o++ = 0xb9;
        memcpy(o, &addr, 8);
        o += 8;
    } else {
        *o++ = 0xb9;
        o = put(o, (uint32_t)addr);
    }
    return (uint32_t)(o - out);
}

/* The hook's call in the block at hand, with all but its code; end: NULL if it is not found. */
static judged find_judged(const Core *c, point_hook *h, uint32_t size)
{
    uint8_t alone[SITE_BYTES], among[SITE_BYTES];
    uint32_t loads[2] = {loads_of(c, h->addr, size, h, alone), loads_for_all(c, h->addr, size, among)};
    const uint8_t *last = code_end(c, c->block_code, c->block);
    for (const uint8_t *p = c->block_code; last && p + SITE_BYTES + MOST_CHECK <= last; p++)
        for (int all = 0; all < 2; all++) {
            const void *called, *helper;
            if (memcmp(p, all ? among : alone, loads[all]) != 0)
                continue;
            uint32_t call = call_at(c, p + loads[all], &called), length = loads[all] + call;
            uint32_t behind = call ? check_at(c, p + length, &helper) : 0;
            if (behind)
                return (judged){.hook = h, .end = (uint8_t *)p + length, .length = (uint8_t)length, .call = (uint8_t)call,
                                .behind = (uint8_t)behind, .all = (uint8_t)all};
        }
    return (judged){.hook = h};
}

/* The hook was called for a condition that does not hold: from now on the code of the block at hand judges. */
static void judge_inside(Core *c, point_hook *h, const bp_entry *point, uint32_t size)
{
    uint8_t bytes[SITE_BYTES];
    if (!c->inlines || !c->near || (uintptr_t)c->block_code - c->buffer_begin >= c->buffer_end - c->buffer_begin ||
        c->judged_count == MAX_JUDGED || !point->conditional || h->left_to_hook)
        return;
    judged j = find_judged(c, h, size);
    const uint8_t **condition = &h->conditions[j.all];
    if (j.end && !*condition && registers_in_place(c, point))
        *condition = compile_condition(c, h, point, size, j.all);
    if (!j.end || !*condition) {
        h->left_to_hook = 1;
        return;
    }
    memcpy(j.original, j.end - j.length, j.length);
    judged_bytes(&j, bytes);
    memcpy(j.end - j.length, bytes, (size_t)(j.length - j.call));
    c->judged[c->judged_count++] = j;
}
#else
static void judge_inside(Core *c, point_hook *h, const bp_entry *point, uint32_t size)
{
    (void)c;
    (void)h;
    (void)point;
    (void)size;
}
#endif
