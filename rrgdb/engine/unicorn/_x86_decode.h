/* x86: instructions by their bytes: kinds, what has to be looked at, lengths. */
#pragma once
#include "_core.h"

enum { X_PLAIN, X_REP, X_BRANCH, X_CALL };

static uint32_t x86_opcode(const Core *c, const uint8_t *b, uint32_t n)
{
    uint32_t i = 0;
    for (; i < n; i++) {
        uint8_t v = b[i];
        if (v == 0x66 || v == 0x67 || v == 0xf2 || v == 0xf3 || v == 0xf0 || v == 0x2e || v == 0x36 || v == 0x3e ||
            v == 0x26 || v == 0x64 || v == 0x65 || (c->wide && (v & 0xf0) == 0x40))
            continue;
        break;
    }
    return i;
}

/* First opcode bytes (behind one REX at most) that need a closer look: prefixes, calls, far transfers, PUSHF, HLT, the
 * two-byte map, x87. */
static const uint8_t x86_first[256] = {
    [0x0f] = 2, [0x26] = 1, [0x2e] = 1, [0x36] = 1, [0x3e] = 1, [0x64] = 1, [0x65] = 1, [0x66] = 1, [0x67] = 1,
    [0x9a] = 1, [0x9c] = 1, [0xca] = 1, [0xcb] = 1, [0xcf] = 1, [0xd9] = 3, [0xe8] = 1, [0xea] = 1, [0xf0] = 1, [0xf2] = 1, [0xf3] = 1, [0xf4] = 1, [0xff] = 1,
};
/* Second bytes behind 0F that classify() may name. */
static const uint8_t x86_second[256] = {
    [0x00] = 1, [0x01] = 1, [0x05] = 1, [0x07] = 1, [0x20] = 1, [0x21] = 1, [0x22] = 1, [0x23] = 1, [0x30] = 1, [0x31] = 1,
    [0x32] = 1, [0x33] = 1, [0x34] = 1, [0x35] = 1, [0xa2] = 1, [0xc7] = 1,
};

/* Second bytes behind D9: what x87 computes by the host's library. */
static const uint8_t x87_second[256] = {
    [0xf0] = 1, [0xf1] = 1, [0xf2] = 1, [0xf3] = 1, [0xf5] = 1, [0xf8] = 1, [0xf9] = 1, [0xfb] = 1, [0xfe] = 1, [0xff] = 1,
};

/* Neither repeats by itself nor can be of interest: true for nearly everything that runs. */
static inline int x86_harmless(const Core *c, const uint8_t *b, uint32_t n)
{
    uint32_t i = c->wide && (b[0] & 0xf0) == 0x40 && n > 1;
    if (c->wide && (b[i] & 0xf0) == 0x40)
        return 0;
    int look = x86_first[b[i]];
    return look == 0 || (look > 1 && i + 1 < n && !(look == 2 ? x86_second : x87_second)[b[i + 1]]);
}

static int x86_kind(const Core *c, const uint8_t *b, uint32_t n)
{
    uint32_t i = x86_opcode(c, b, n);
    int rep = 0;
    if (i >= n)
        return X_PLAIN;
    for (uint32_t k = 0; k < i; k++)
        rep |= b[k] == 0xf2 || b[k] == 0xf3;
    uint8_t o = b[i], next = i + 1 < n ? b[i + 1] : 0;
    if (rep && ((o >= 0xa4 && o <= 0xa7) || (o >= 0xaa && o <= 0xaf) || (o >= 0x6c && o <= 0x6f)))
        return X_REP;
    if (o == 0xe8 || o == 0x9a || (o == 0xff && ((next >> 3 & 7) == 2 || (next >> 3 & 7) == 3)))
        return X_CALL;
    if (o == 0xeb || o == 0xe9 || o == 0xea || (o & 0xf0) == 0x70 || (o >= 0xe0 && o <= 0xe3) || o == 0xc2 || o == 0xc3 ||
        o == 0xca || o == 0xcb || o == 0xcf || (o == 0x0f && (next & 0xf0) == 0x80) ||
        (o == 0xff && ((next >> 3 & 7) == 4 || (next >> 3 & 7) == 5)))
        return X_BRANCH;
    return X_PLAIN;
}

/* PUSHF and REP: they write cc_op before they access memory. */
static int x86_keeps_flags(const Core *c, const uint8_t *b, uint32_t n)
{
    uint32_t i = x86_opcode(c, b, n);
    return i < n && (b[i] == 0x9c || x86_kind(c, b, n) == X_REP);
}

static int x86_interesting(const Core *c, const uint8_t *b, uint32_t n)
{
    uint32_t i = x86_opcode(c, b, n);
    if (i >= n)
        return 0;
    if (b[i] == 0xf4)
        return 1;
    return i + 1 < n && ((b[i] == 0x0f && x86_second[b[i + 1]]) || (b[i] == 0xd9 && x87_second[b[i + 1]]));
}

/* DIV, IDIV and FWAIT: whatever they raise, Unicorn computes the flags as they were kept before the instruction. */
static int x86_raises(const Core *c, const uint8_t *b, uint32_t n)
{
    uint32_t i = x86_opcode(c, b, n);
    return i < n && (b[i] == 0x9b || ((b[i] & 0xfe) == 0xf6 && i + 1 < n && (b[i + 1] >> 4 & 3) == 3));
}

/* ---- lengths --------------------------------------------------------------------------------- */

/* How an opcode goes on. Intel's manual, volume 2, appendix A.
 * . nothing  m ModRM  b imm8  w imm16  z imm16/32  v imm up to 64  j rel32  o address  i ModRM imm8  Z ModRM imm16/32
 * p prefix  2 two-byte map  3, 4 three-byte maps  ! not plain; by ModRM: s, S shifts  f x87  g, G group 3  F group 5
 * t store of a condition  e group 15 */
static const char x86_map1[] =
    "mmmmbz!!mmmmbz!2" "mmmmbz!!mmmmbz!!" "mmmmbzp!mmmmbzp!" "mmmmbzp!mmmmbzp!"
    "................" "................" "!!!mppppzZbi!!!!" "bbbbbbbbbbbbbbbb"
    "iZ!immmmmmmmmm!!" "..........!..!.." "oooo....bz......" "bbbbbbbbvvvvvvvv"
    "SSw.!!iZ!.!!!!!!" "ssss!!!.ffffffff" "bbbb!!!!jj!b!!!!" "p!pp!.gG..!!..mF";
static const char x86_map2[] =
    "!!!!!!!!!!!!!m!!" "mmmmmmmmmm!!mmmm" "!!!!!!!!mmmmmmmm" "!!!!!!!!3!4!!!!!"
    "mmmmmmmmmmmmmmmm" "mmmmmmmmmmmmmmmm" "mmmmmmmmmmmmmmmm" "iiiimmm.!!!!mmmm"
    "jjjjjjjjjjjjjjjj" "tttttttttttttttt" "!!!!im!!!!!!imem" "mm!!!!mmm!!!mmmm"
    "mmimiii!........" "mmmmmmmmmmmmmmmm" "mmmmmmmmmmmmmmmm" "mmmmmmm!mmmmmmm!";

/* Bytes of ModRM, SIB and displacement, with 32-bit or 64-bit addresses. */
static uint32_t x86_modrm(const uint8_t *b, uint32_t n)
{
    uint32_t mod = b[0] >> 6, rm = b[0] & 7, length = 1;
    if (mod == 3)
        return 1;
    if (rm == 4) {
        if (n < 2)
            return 0;
        length = 2;
        if (mod == 0 && (b[1] & 7) == 5)
            return 6;
    }
    if (mod == 0)
        return rm == 5 ? 5 : length;
    return length + (mod == 1 ? 1 : 4);
}

/* Whether the ModRM byte leaves the instruction plain, for the kinds that depend on it. */
static int x86_plain_operand(char kind, uint8_t opcode, uint8_t modrm)
{
    int memory = modrm >> 6 != 3, reg = modrm >> 3 & 7;
    switch (kind) {
    case 's': /* RCL and RCR change the carry before they store */
    case 'S':
        return !(memory && (reg == 2 || reg == 3));
    case 't': /* may have changed how the flags are kept before it stores */
        return !memory;
    case 'f': /* environments and 80-bit numbers: stored piece by piece */
        return !memory || !((opcode == 0xd9 && (reg == 4 || reg == 6)) || (opcode == 0xdb && (reg == 5 || reg == 7)) ||
                            (opcode == 0xdd && (reg == 4 || reg == 6)) || (opcode == 0xdf && (reg == 4 || reg == 6)));
    case 'F': /* far calls and jumps */
        return reg != 3 && reg != 5 && reg != 7;
    case 'e': /* fences; the rest moves whole states */
        return !memory;
    default:
        return 1;
    }
}

/* Bit tests are not plain: the flags that they leave undefined depend on how Unicorn kept them before. */
static uint32_t x86_plain_length(const Core *c, const uint8_t *b, uint32_t n)
{
    if (x86_interesting(c, b, n))
        return 0;
    uint32_t i = 0, wide = 0, short_operand = 0, short_address = 0;
    const char *map = x86_map1;
    for (; i < n && x86_map1[b[i]] == 'p'; i++) {
        short_operand |= b[i] == 0x66;
        short_address |= b[i] == 0x67;
    }
    if (short_address && !c->wide)
        return 0;
    if (c->wide && i < n && (b[i] & 0xf0) == 0x40)
        wide = b[i++] & 8;
    if (c->wide && i < n && (b[i] & 0xf0) == 0x40)
        return 0;
    if (i >= n)
        return 0;
    uint8_t opcode = b[i++];
    char kind = map[opcode];
    if (kind == '2') {
        if (i >= n)
            return 0;
        map = x86_map2;
        opcode = b[i++];
        kind = map[opcode];
        if (kind == '3' || kind == '4') {
            kind = kind == '3' ? 'm' : 'i';
            map = NULL;
            i++;
        }
    }
    uint32_t operand = short_operand && !wide ? 2 : 4;
    if (strchr("miZsSfgGFte", kind)) {
        if (i >= n || !x86_plain_operand(kind, opcode, b[i]))
            return 0;
        uint8_t modrm = b[i];
        uint32_t length = x86_modrm(b + i, n - i);
        if (!length || (map == x86_map1 && (opcode == 0xc6 || opcode == 0xc7) && modrm & 0x38) ||
            (map == x86_map1 && opcode == 0x63 && !c->wide))
            return 0;
        i += length;
        if (kind == 'i' || kind == 'S' || (kind == 'g' && (modrm & 0x30) == 0))
            i += 1;
        else if (kind == 'Z' || (kind == 'G' && (modrm & 0x30) == 0))
            i += operand;
    } else {
        switch (kind) {
        case '.': break;
        case 'b': i += 1; break;
        case 'w': i += 2; break;
        case 'z': i += operand; break;
        case 'v': i += wide ? 8 : operand; break;
        case 'o': i += c->wide && !short_address ? 8 : 4; break;
        case 'j':
            if (short_operand)
                return 0;
            i += 4;
            break;
        default: return 0;
        }
    }
    return i <= n && i < MAX_INSN ? i : 0;
}
