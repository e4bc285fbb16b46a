/* Conditions of breakpoints: GDB's agent expressions, judged in the hooks.
 *
 * rrgdb/agent/evaluate.py is the specification, its limits included. What can be told here, is; the rest is left to Python:
 * bytecode that is not valid, registers that a hook cannot read, and memory that is not simply RAM.
 */
#pragma once
#include "_core.h"
#include "_known.h"
#include "_memory.h"

enum { AGENT_FALSE, AGENT_TRUE, AGENT_ASK };
enum { REGISTER_PC = -1, REGISTER_ZERO = -2, REGISTER_ASK = -3 };

#define AGENT_STACK 100
#define AGENT_STEPS 10000
#define AGENT_CODE 1024

enum {
    A_ADD = 0x02, A_SUB, A_MUL, A_DIV_SIGNED, A_DIV_UNSIGNED, A_REM_SIGNED, A_REM_UNSIGNED, A_LSH, A_RSH_SIGNED,
    A_RSH_UNSIGNED, A_LOG_NOT = 0x0e, A_BIT_AND, A_BIT_OR, A_BIT_XOR, A_BIT_NOT, A_EQUAL, A_LESS_SIGNED, A_LESS_UNSIGNED,
    A_EXT, A_REF8, A_REF16, A_REF32, A_REF64, A_IF_GOTO = 0x20, A_GOTO, A_CONST8, A_CONST16, A_CONST32, A_CONST64, A_REG,
    A_END, A_DUP, A_POP, A_ZERO_EXT, A_SWAP, A_PICK = 0x32, A_ROT
};

/* of each byte: whether it is an operation, bytes of operand, and how many values must be on the stack; see
 * rrgdb/agent/bytecode.py, which fills it */
static struct {
    uint8_t known, operand, needs;
} agent_operations[256];

static PyObject *set_agent_operations(PyObject *module, PyObject *table)
{
    (void)module;
    if (!PyBytes_Check(table) || PyBytes_GET_SIZE(table) != (Py_ssize_t)sizeof agent_operations) {
        PyErr_Format(PyExc_ValueError, "a table of %zu bytes is expected", sizeof agent_operations);
        return NULL;
    }
    memcpy(agent_operations, PyBytes_AS_STRING(table), sizeof agent_operations);
    Py_RETURN_NONE;
}

/* Bytecode taken apart; NULL where Python must be asked, or (with ``*failed``) for want of memory. */
static agent_code *agent_decode(const Core *c, const uint8_t *b, size_t n, int *failed)
{
    uint16_t index[AGENT_CODE] = {0}; /* of the step at an offset, from 1 on */
    if (!n || n > AGENT_CODE)
        return NULL;
    agent_code *code = malloc(sizeof *code + n * sizeof *code->steps);
    if (!code) {
        *failed = 1;
        return NULL;
    }
    *code = (agent_code){NULL, 0};
    size_t at = 0;
    while (at < n) {
        uint8_t op = b[at];
        if (!agent_operations[op].known || n - at - 1 < agent_operations[op].operand)
            goto ask;
        agent_step *s = &code->steps[code->count];
        index[at++] = (uint16_t)++code->count;
        *s = (agent_step){0, agent_operations[op].needs, op};
        for (int i = 0; i < agent_operations[op].operand; i++)
            s->operand = s->operand << 8 | b[at++];
        if (op == A_PICK)
            s->needs = (uint16_t)(s->operand + 1);
        if ((op == A_EXT || op == A_ZERO_EXT) && (s->operand < 1 || s->operand > 64))
            goto ask;
        if (op == A_REG && (s->operand >= c->register_count || c->registers[s->operand].id == REGISTER_ASK))
            goto ask;
    }
    uint8_t last = code->steps[code->count - 1].op;
    if (last != A_END && last != A_GOTO)
        goto ask;
    for (uint32_t i = 0; i < code->count; i++) {
        agent_step *s = &code->steps[i];
        if (s->op != A_GOTO && s->op != A_IF_GOTO)
            continue;
        if (s->operand >= n || !index[s->operand])
            goto ask;
        s->operand = index[s->operand] - 1u;
    }
    return code;
ask:
    free(code);
    return NULL;
}

static void agent_free(agent_code *code)
{
    while (code) {
        agent_code *next = code->next;
        free(code);
        code = next;
    }
}

static uint64_t agent_read_register(Core *c, uint32_t number, uint64_t pc)
{
    const agent_register *r = &c->registers[number];
    uint8_t buffer[64] = {0};
    uint64_t value = pc - c->code_base;
    if (r->id == REGISTER_ZERO)
        return 0;
    if (r->id != REGISTER_PC) {
        c->reg_read(c->uc, r->id, buffer);
        memcpy(&value, buffer, sizeof value);
    }
    return r->bits < 64 ? value & (((uint64_t)1 << r->bits) - 1) : value;
}

/* Zero if that is not RAM, all of it in one piece, at the address as it is, or as it is known to be mapped. */
static int agent_read_memory(Core *c, uint64_t address, uint64_t size, uint64_t *value)
{
    if (c->mmu_seen) {
        const uint8_t *host = known_host(c, address, size);
        if (host)
            *value = load_value(c, host, size);
        return host != NULL;
    }
    for (int i = 0; i < c->region_count; i++) {
        uint64_t offset = address - c->regions[i].base;
        if (offset >= c->regions[i].size)
            continue;
        if (c->regions[i].size - offset < size)
            return 0;
        *value = load_value(c, c->regions[i].host + offset, size);
        return 1;
    }
    return 0;
}

static inline uint64_t agent_shift_signed(uint64_t value, uint64_t by)
{
    uint64_t sign = value >> 63 ? UINT64_MAX : 0;
    return by > 63 ? sign : by ? value >> by | sign << (64 - by) : value;
}

/* Signed, towards zero; right is not 0. The most negative value by -1 is itself. */
static inline uint64_t agent_divide(uint64_t left, uint64_t right)
{
    uint64_t a = left >> 63 ? -left : left, b = right >> 63 ? -right : right;
    return (left ^ right) >> 63 ? -(a / b) : a / b;
}

/* What one expression says; one that fails says AGENT_TRUE. */
static int agent_run(Core *c, const agent_code *code, uint64_t pc)
{
    uint64_t stack[AGENT_STACK + 1], swapped;
    uint32_t at = 0, depth = 0;
    for (int steps = 0; steps < AGENT_STEPS; steps++) {
        const agent_step *s = &code->steps[at++];
        if (depth < s->needs)
            return AGENT_TRUE;
        uint64_t *top = depth ? stack + depth - 1 : stack, right = depth ? *top : 0;
        switch (s->op) {
        case A_ADD: top[-1] += right; depth--; break;
        case A_SUB: top[-1] -= right; depth--; break;
        case A_MUL: top[-1] *= right; depth--; break;
        case A_BIT_AND: top[-1] &= right; depth--; break;
        case A_BIT_OR: top[-1] |= right; depth--; break;
        case A_BIT_XOR: top[-1] ^= right; depth--; break;
        case A_EQUAL: top[-1] = top[-1] == right; depth--; break;
        case A_LESS_SIGNED: top[-1] = (int64_t)top[-1] < (int64_t)right; depth--; break;
        case A_LESS_UNSIGNED: top[-1] = top[-1] < right; depth--; break;
        case A_LSH: top[-1] = right > 63 ? 0 : top[-1] << right; depth--; break;
        case A_RSH_UNSIGNED: top[-1] = right > 63 ? 0 : top[-1] >> right; depth--; break;
        case A_RSH_SIGNED: top[-1] = agent_shift_signed(top[-1], right); depth--; break;
        case A_DIV_SIGNED: case A_DIV_UNSIGNED: case A_REM_SIGNED: case A_REM_UNSIGNED:
            if (!right)
                return AGENT_TRUE;
            if (s->op == A_DIV_UNSIGNED)
                top[-1] /= right;
            else if (s->op == A_REM_UNSIGNED)
                top[-1] %= right;
            else if (s->op == A_DIV_SIGNED)
                top[-1] = agent_divide(top[-1], right);
            else
                top[-1] -= right * agent_divide(top[-1], right);
            depth--;
            break;
        case A_LOG_NOT: *top = !right; break;
        case A_BIT_NOT: *top = ~right; break;
        case A_EXT: *top = agent_shift_signed(right << (64 - s->operand), 64 - s->operand); break;
        case A_ZERO_EXT: *top = right << (64 - s->operand) >> (64 - s->operand); break;
        case A_REF8: case A_REF16: case A_REF32: case A_REF64:
            if (!agent_read_memory(c, right, (uint64_t)1 << (s->op - A_REF8), top))
                return AGENT_ASK;
            break;
        case A_IF_GOTO:
            depth--;
            if (right)
                at = (uint32_t)s->operand;
            break;
        case A_GOTO: at = (uint32_t)s->operand; break;
        case A_CONST8: case A_CONST16: case A_CONST32: case A_CONST64: stack[depth++] = s->operand; break;
        case A_REG: stack[depth++] = agent_read_register(c, (uint32_t)s->operand, pc); break;
        case A_END: return right ? AGENT_TRUE : AGENT_FALSE;
        case A_DUP: stack[depth++] = right; break;
        case A_POP: depth--; break;
        case A_SWAP: *top = top[-1]; top[-1] = right; break;
        case A_PICK: stack[depth] = stack[depth - 1 - s->operand]; depth++; break;
        case A_ROT: /* a b c -> c a b */
            swapped = top[-1];
            top[-1] = top[-2];
            top[-2] = right;
            *top = swapped;
            break;
        }
        if (depth > AGENT_STACK)
            return AGENT_TRUE;
    }
    return AGENT_TRUE;
}

/* Whether a breakpoint stops at pc, the position at hand: one expression that is not zero is enough. */
static int point_holds(Core *c, const bp_entry *point, uint64_t pc)
{
    if (!point->conditional)
        return AGENT_TRUE;
    if (!point->codes)
        return AGENT_ASK;
    int holds = AGENT_FALSE;
    for (const agent_code *code = point->codes; code; code = code->next) {
        int one = agent_run(c, code, pc);
        if (one == AGENT_TRUE)
            return AGENT_TRUE;
        if (one == AGENT_ASK)
            holds = AGENT_ASK;
    }
    return holds;
}
