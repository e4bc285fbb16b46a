/* Lengths of plain instructions: those that may be part of a plain block (see _fast.h). Included by _hot.c.
 *
 * Plain is what cannot trap by design, talks to no port, and can be refused an access and begin again as if nothing had
 * happened. On x86 bit tests are not: the flags that they leave undefined depend on how Unicorn kept them before. All else,
 * and what is not known here, has length 0.
 */

/* x86: how an opcode goes on. Intel's manual, volume 2, appendix A.
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

static uint32_t x86_length(const Core *c, const uint8_t *b, uint32_t n)
{
    uint32_t i = 0, wide = 0, short_operand = 0, short_address = 0;
    const char *map = x86_map1;
    for (; i < n && x86_map1[b[i]] == 'p'; i++) {
        short_operand |= b[i] == 0x66;
        short_address |= b[i] == 0x67;
    }
    if (short_address && !c->mode64)
        return 0;
    if (c->mode64 && i < n && (b[i] & 0xf0) == 0x40)
        wide = b[i++] & 8;
    if (c->mode64 && i < n && (b[i] & 0xf0) == 0x40)
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
            (map == x86_map1 && opcode == 0x63 && !c->mode64))
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
        case 'o': i += c->mode64 && !short_address ? 8 : 4; break;
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

/* Instructions that enter an exception by design: RISC-V SYSTEM, AArch64 exception generation. */
static int sensitive(const Core *c, const uint8_t *b)
{
    uint32_t w;
    memcpy(&w, b, 4);
    return c->compressed ? (w & 0x7f) == 0x73 : (w & 0xff000000u) == 0xd4000000u;
}

/* SVC, UDF and BKPT enter an exception by design. What an IT block passes over counts as well: its blocks are plain. */
static uint32_t arm_length(const Core *c, const uint8_t *b, uint32_t n)
{
    uint32_t length = !in_thumb(c) ? 4 : n >= 2 ? thumb_length(b) : 2, w;
    if (length > n || interesting(c, b, (int)length))
        return 0;
    if (in_thumb(c))
        return length == 2 && (b[1] == 0xde || b[1] == 0xdf || b[1] == 0xbe) ? 0 : length;
    memcpy(&w, b, 4);
    return (w & 0x0f000000u) == 0x0f000000u || (w & 0x0ff000f0u) == 0x01200070u ? 0 : 4;
}

/* Length of the plain instruction at b, of which n bytes are there; 0 if it is not plain. */
static uint32_t plain_length(const Core *c, const uint8_t *b, uint32_t n)
{
    if (c->x86)
        return interesting(c, b, (int)n) ? 0 : x86_length(c, b, n);
    if (c->arm)
        return arm_length(c, b, n);
    uint32_t length = c->compressed && n && (b[0] & 3) != 3 ? 2 : 4;
    if (length > n)
        return 0;
    if (length == 4)
        return interesting(c, b, 4) || sensitive(c, b) ? 0 : 4;
    return (b[0] == 0x02 && b[1] == 0x90) || (c->rv_f && rv_reserved(c, rv_half(b))) ? 0 : 2; /* c.ebreak */
}
