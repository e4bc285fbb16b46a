/* x87's transcendental instructions and partial remainders: the same bits on every host.
 *
 * Integers alone: no floating point of the host, none of its library. A number in between is a `real` of 128 bits, cut off
 * at each step; what an instruction returns is off by less than 2^-110 before it is rounded to 64 bits, so it is the
 * nearest 80-bit number but where the exact value lies that close to the middle of two. Angles are reduced by as many bits
 * of 2/pi as it takes.
 *
 * Sources: "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 1, chapter 8, and volume 2 for each
 * instruction (operands that are zeros, infinities, out of range).
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

__extension__ typedef unsigned __int128 u128;

#define BITS(high, low) ((u128)(high) << 64 | (low))
#define TOP_BIT BITS(1ull << 63, 0)
#define INTEGER_BIT (1ull << 63)
#define BIAS 16383
#define MAX_EXPONENT 0x7fff
#define WRAP 24576 /* by which an unmasked overflow or underflow moves the exponent */

/* of the status word; the first six are masked by the same bits of the control word */
enum { INVALID = 1, DENORMAL = 2, DIVISION = 4, OVERFLOW = 8, UNDERFLOW = 16, INEXACT = 32, STACK = 0x40, SUMMARY = 0x80,
       C0 = 0x100, C1 = 0x200, C2 = 0x400, C3 = 0x4000, BUSY = 0x8000 };
#define EXCEPTIONS 0x3fu
#define CONDITIONS (C0 | C1 | C2 | C3)
enum { NEAREST, DOWN, UP, TOWARDS_ZERO };

/* second bytes behind D9 */
enum { F2XM1 = 0xf0, FYL2X = 0xf1, FPTAN = 0xf2, FPATAN = 0xf3, FPREM1 = 0xf5, FPREM = 0xf8, FYL2XP1 = 0xf9, FSINCOS = 0xfb,
       FSIN = 0xfe, FCOS = 0xff };

typedef struct { int sign; int exponent; u128 bits; } real; /* bits / 2^127 * 2^exponent; bits: 0, or with the top bit set */
typedef struct { uint64_t bits; uint16_t top; } extended;   /* top: sign and exponent */
typedef struct { unsigned control, flags; int up; } context;

static const extended NOT_A_NUMBER = {0xc000000000000000ull, 0xffff};
static const real ONE = {0, 0, TOP_BIT};
static const real PI = {0, 1, BITS(0xc90fdaa22168c234, 0xc4c6628b80dc1cd1)};
static const real HALF_PI = {0, 0, BITS(0xc90fdaa22168c234, 0xc4c6628b80dc1cd1)};
static const real QUARTER_PI = {0, -1, BITS(0xc90fdaa22168c234, 0xc4c6628b80dc1cd1)};
static const real THREE_QUARTERS_PI = {0, 1, BITS(0x96cbe3f9990e91a7, 0x9394c9e8a0a5159c)};
static const real LN2 = {0, -1, BITS(0xb17217f7d1cf79ab, 0xc9e3b39803f2f6af)};
static const real LOG2_E = {0, 0, BITS(0xb8aa3b295c17f0bb, 0xbe87fed0691d3e88)};
static const real ARCTANGENTS[9] = { /* of 0/8 to 8/8 */
    {0, 0, 0},
    {0, -4, BITS(0xfeadd4d5617b6e32, 0xc897989f3e888ef7)},
    {0, -3, BITS(0xfadbafc96406eb15, 0x6dc79ef5f7a217e5)},
    {0, -2, BITS(0xb7b0ca0f26f78473, 0x8aa32122dcfe4483)},
    {0, -2, BITS(0xed63382b0dda7b45, 0x6fe445ecbc3a8d03)},
    {0, -1, BITS(0x8f005d5ef7f59f9b, 0x5c835e1665c43747)},
    {0, -1, BITS(0xa4bc7d1934f70924, 0x19a87f2a457dac9e)},
    {0, -1, BITS(0xb8053e2bc2319e73, 0xcb2da55210a4443d)},
    {0, -1, BITS(0xc90fdaa22168c234, 0xc4c6628b80dc1cd1)},
};
static const uint64_t TWO_OVER_PI[5] = { /* times 2^320, lowest first */
    0xb7246e3a424dd2e0, 0xfe5163abdebbc561, 0xdb6295993c439041, 0xfc2757d1f534ddc0, 0xa2f9836e4e441529,
};
#define TINY (-60) /* exponent of arguments whose function differs by less than a real shows from its first term */

/* ---- numbers of 128 bits ---------------------------------------------------------------------------- */

static real normal(int sign, int exponent, u128 bits)
{
    real r = {sign, exponent, bits};
    if (!bits)
        return (real){sign, 0, 0};
    while (!(r.bits >> 120)) {
        r.bits <<= 8;
        r.exponent -= 8;
    }
    while (!(r.bits & TOP_BIT)) {
        r.bits <<= 1;
        r.exponent--;
    }
    return r;
}

static real whole(unsigned n)
{
    return normal(0, 127, n);
}

static real negative(real a)
{
    a.sign ^= 1;
    return a;
}

static real scaled(real a, int by)
{
    if (a.bits)
        a.exponent += by;
    return a;
}

static u128 high_product(u128 a, u128 b, u128 *low)
{
    uint64_t ah = (uint64_t)(a >> 64), al = (uint64_t)a, bh = (uint64_t)(b >> 64), bl = (uint64_t)b;
    u128 ll = (u128)al * bl, lh = (u128)al * bh, hl = (u128)ah * bl, hh = (u128)ah * bh;
    u128 middle = (ll >> 64) + (uint64_t)lh + (uint64_t)hl;
    *low = middle << 64 | (uint64_t)ll;
    return hh + (lh >> 64) + (hl >> 64) + (middle >> 64);
}

static real multiply(real a, real b)
{
    u128 low, high = high_product(a.bits, b.bits, &low);
    if (!high)
        return (real){a.sign ^ b.sign, 0, 0};
    int exponent = a.exponent + b.exponent + 1;
    if (!(high & TOP_BIT)) {
        high = high << 1 | low >> 127;
        exponent--;
    }
    return (real){a.sign ^ b.sign, exponent, high};
}

/* b is not zero */
static real divide(real a, real b)
{
    if (!a.bits)
        return (real){a.sign ^ b.sign, 0, 0};
    int exponent = a.exponent - b.exponent;
    u128 quotient = 0, rest = a.bits;
    if (rest < b.bits) {
        int carry = (int)(rest >> 127);
        rest <<= 1;
        exponent--;
        quotient = carry || rest >= b.bits;
        rest -= b.bits;
    } else {
        quotient = 1;
        rest -= b.bits;
    }
    for (int i = 0; i < 127; i++) {
        int carry = (int)(rest >> 127);
        rest <<= 1;
        quotient <<= 1;
        if (carry || rest >= b.bits) {
            rest -= b.bits;
            quotient |= 1;
        }
    }
    return (real){a.sign ^ b.sign, exponent, quotient};
}

/* n is below 2^12 */
static real divide_by(real a, unsigned n)
{
    if (!a.bits)
        return a;
    u128 quotient = a.bits / n, rest = a.bits % n;
    int shift = 0;
    while (!(quotient << shift & TOP_BIT))
        shift++;
    return (real){a.sign, a.exponent - shift, quotient << shift | (rest << shift) / n};
}

static real add(real a, real b)
{
    if (!a.bits)
        return b;
    if (!b.bits)
        return a;
    if (a.exponent < b.exponent || (a.exponent == b.exponent && a.bits < b.bits)) {
        real c = a;
        a = b;
        b = c;
    }
    int shift = a.exponent - b.exponent;
    u128 smaller = shift < 128 ? b.bits >> shift : 0;
    if (a.sign != b.sign)
        return normal(a.sign, a.exponent, a.bits - smaller);
    u128 sum = a.bits + smaller;
    if (sum < a.bits)
        return (real){a.sign, a.exponent + 1, sum >> 1 | TOP_BIT};
    return (real){a.sign, a.exponent, sum};
}

static real subtract(real a, real b)
{
    return add(a, negative(b));
}

static int is_less(real a, real b) /* of numbers above zero */
{
    return a.exponent < b.exponent || (a.exponent == b.exponent && a.bits < b.bits);
}

/* The next number towards zero, and away from it: where the exact value is known to lie there, out of sight. */
static real below(real a)
{
    return a.bits == TOP_BIT ? (real){a.sign, a.exponent - 1, ~(u128)0} : (real){a.sign, a.exponent, a.bits - 1};
}

static real above(real a)
{
    return a.bits == ~(u128)0 ? (real){a.sign, a.exponent + 1, TOP_BIT} : (real){a.sign, a.exponent, a.bits + 1};
}

/* ---- functions ------------------------------------------------------------------------------------------ */

/* |x| <= pi/4, not zero */
static real sine(real x)
{
    if (x.exponent < TINY)
        return below(x);
    real square = multiply(x, x), sum = ONE;
    for (unsigned k = 17; k > 0; k--)
        sum = subtract(ONE, multiply(divide_by(square, 2 * k * (2 * k + 1)), sum));
    return multiply(x, sum);
}

static real cosine(real x)
{
    if (x.exponent < TINY)
        return below(ONE);
    real square = multiply(x, x), sum = ONE;
    for (unsigned k = 17; k > 0; k--)
        sum = subtract(ONE, multiply(divide_by(square, 2 * k * (2 * k - 1)), sum));
    return sum;
}

/* x without multiples of pi/2, at most pi/4 and not zero; their number is *quadrant, modulo 4. |x| < 2^63, with 64 bits. */
static real reduce(real x, unsigned *quadrant)
{
    *quadrant = 0;
    if (x.exponent < -1)
        return x;
    uint64_t product[6] = {0}, factor = (uint64_t)(x.bits >> 64);
    for (int i = 0; i < 5; i++) {
        u128 part = (u128)factor * TWO_OVER_PI[i] + product[i];
        product[i] = (uint64_t)part;
        product[i + 1] = (uint64_t)(part >> 64);
    }
    /* x is factor * 2^(exponent - 63), so whole quadrants begin at this bit of the product: 321 to 384 */
    unsigned point = (unsigned)(383 - x.exponent);
    if (point < 384) {
        *quadrant = (unsigned)(product[5] >> (point - 320));
        product[5] &= (1ull << (point - 320)) - 1;
    }
    int sign = x.sign;
    if (product[(point - 1) / 64] >> (point - 1) % 64 & 1) { /* the next multiple is nearer */
        uint64_t carry = 1;
        for (int i = 0; i < 6; i++) {
            product[i] = ~product[i] + carry;
            carry = carry && !product[i];
        }
        if (point < 384)
            product[5] &= (1ull << (point - 320)) - 1;
        ++*quadrant;
        sign ^= 1;
    }
    *quadrant = (x.sign ? 0 - *quadrant : *quadrant) & 3;
    int highest = 5;
    while (!product[highest])
        highest--;
    int empty = 0;
    while (!(product[highest] << empty >> 63))
        empty++;
    u128 bits = BITS(product[highest], product[highest - 1]) << empty;
    if (empty)
        bits |= product[highest - 2] >> (64 - empty);
    real turns = {sign, 64 * highest + 63 - empty - (int)point, bits};
    return multiply(turns, HALF_PI);
}

static real tangent(real x, unsigned quadrant)
{
    if (x.exponent < TINY)
        return quadrant & 1 ? negative(below(divide(ONE, x))) : above(x);
    real s = sine(x), c = cosine(x);
    return quadrant & 1 ? negative(divide(c, s)) : divide(s, c);
}

/* 0 < x <= 1 */
static real arctangent(real x)
{
    if (x.exponent < TINY)
        return below(x);
    real eighth = scaled(x, 3), half = {0, -1, TOP_BIT};
    eighth = add(eighth, half);
    unsigned k = eighth.exponent < 0 ? 0 : (unsigned)(eighth.bits >> (127 - eighth.exponent));
    real middle = scaled(whole(k), -3);
    real rest = k ? divide(subtract(x, middle), add(ONE, multiply(x, middle))) : x;
    real square = multiply(rest, rest), sum = divide_by(ONE, 35);
    for (unsigned n = 33; n > 0 && n < 35; n -= 2)
        sum = subtract(divide_by(ONE, n), multiply(square, sum));
    return add(ARCTANGENTS[k], multiply(rest, sum));
}

/* e^x - 1 where |x| is below ln 2, not zero */
static real exponential_less_one(real x)
{
    real sum = ONE;
    for (unsigned n = 36; n > 1; n--)
        sum = add(ONE, multiply(divide_by(x, n), sum));
    return multiply(x, sum);
}

/* log2(1 + x) where 1 + x lies from sqrt(1/2) to sqrt(2) */
static real logarithm_near_one(real x)
{
    real ratio = divide(x, add(scaled(ONE, 1), x)), square = multiply(ratio, ratio), sum = divide_by(ONE, 57);
    for (unsigned n = 55; n > 0 && n < 57; n -= 2)
        sum = add(divide_by(ONE, n), multiply(square, sum));
    return multiply(scaled(multiply(ratio, sum), 1), LOG2_E);
}

/* x > 0 */
static real logarithm(real x)
{
    static const real ROOT = {0, 0, BITS(0xb504f333f9de6484, 0x597d89b3754abe9f)};
    real mantissa = {0, 0, x.bits};
    int power = x.exponent;
    if (is_less(ROOT, mantissa)) {
        mantissa.exponent--;
        power++;
    }
    real log = whole((unsigned)(power < 0 ? -power : power));
    log.sign = power < 0;
    return add(log, logarithm_near_one(subtract(mantissa, ONE)));
}

/* ---- numbers of 80 bits ----------------------------------------------------------------------------------- */

static int exponent_of(extended a) { return a.top & 0x7fff; }
static int sign_of(extended a) { return a.top >> 15; }
static int is_zero(extended a) { return !exponent_of(a) && !a.bits; }
static int is_infinite(extended a) { return exponent_of(a) == MAX_EXPONENT && a.bits == INTEGER_BIT; }
static int is_nan(extended a) { return exponent_of(a) == MAX_EXPONENT && a.bits & INTEGER_BIT && a.bits << 1; }
static int is_signalling(extended a) { return is_nan(a) && !(a.bits & INTEGER_BIT >> 1); }
static int is_denormal(extended a) { return !exponent_of(a) && a.bits; }
static int is_unsupported(extended a) { return exponent_of(a) && !(a.bits & INTEGER_BIT); }

static extended zero(int sign) { return (extended){0, (uint16_t)(sign << 15)}; }
static extended infinity(int sign) { return (extended){INTEGER_BIT, (uint16_t)(sign << 15 | MAX_EXPONENT)}; }

static real to_real(extended a)
{
    return normal(sign_of(a), (exponent_of(a) ? exponent_of(a) : 1) - BIAS, (u128)a.bits << 64);
}

static int rounding(const context *c) { return (int)(c->control >> 10 & 3); }

/* Cut bits to the upper 64 by the rounding control; what is cut off tells that the number is inexact. */
static uint64_t rounded(const context *c, int sign, u128 bits, int sticky, int *carry, int *up)
{
    uint64_t high = (uint64_t)(bits >> 64), low = (uint64_t)bits;
    int any = low || sticky;
    switch (rounding(c)) {
    case NEAREST: *up = low > INTEGER_BIT || (low == INTEGER_BIT && (sticky || high & 1)); break;
    case DOWN: *up = any && sign; break;
    case UP: *up = any && !sign; break;
    default: *up = 0;
    }
    *carry = *up && high + 1 == 0;
    return high + (uint64_t)*up;
}

/* As an 80-bit number. inexact: the exact value differs from a, if by ever so little. */
static extended to_extended(context *c, real a, int inexact)
{
    int carry, up, exponent = a.exponent + BIAS;
    if (!a.bits)
        return zero(a.sign);
    uint64_t bits = rounded(c, a.sign, a.bits, inexact, &carry, &up);
    int lost = inexact || (uint64_t)a.bits;
    if (carry)
        bits = INTEGER_BIT;
    if (exponent + carry <= 0) {
        if (!(c->control & UNDERFLOW)) {
            c->flags |= UNDERFLOW;
            exponent += WRAP;
        } else {
            int shift = 1 - exponent;
            u128 cut = shift < 128 ? a.bits << (128 - shift) : a.bits;
            u128 shifted = shift < 128 ? a.bits >> shift : 0;
            bits = rounded(c, a.sign, shifted, inexact || cut, &carry, &up);
            lost = inexact || cut || (uint64_t)shifted;
            exponent = bits >> 63 ? 1 : 0;
            carry = 0;
            c->flags |= lost ? UNDERFLOW : 0;
        }
    }
    exponent += carry;
    if (exponent >= MAX_EXPONENT) {
        c->flags |= OVERFLOW;
        if (!(c->control & OVERFLOW)) {
            exponent -= WRAP;
        } else {
            c->flags |= INEXACT;
            c->up = rounding(c) == NEAREST || rounding(c) == (a.sign ? DOWN : UP);
            return c->up ? infinity(a.sign) : (extended){UINT64_MAX, (uint16_t)(a.sign << 15 | (MAX_EXPONENT - 1))};
        }
    }
    if (lost)
        c->flags |= INEXACT;
    c->up = up;
    return (extended){bits, (uint16_t)(a.sign << 15 | (exponent & MAX_EXPONENT))};
}

static extended invalid(context *c)
{
    c->flags |= INVALID;
    return NOT_A_NUMBER;
}

/* What is neither a number nor an infinity has an answer of its own: nonzero, and *answer. */
static int not_numbers(context *c, const extended *operands, int count, extended *answer)
{
    const extended *chosen = NULL;
    for (int i = 0; i < count; i++)
        if (is_unsupported(operands[i])) {
            *answer = invalid(c);
            return 1;
        }
    for (int i = 0; i < count; i++) {
        const extended *a = &operands[i];
        if (!is_nan(*a))
            continue;
        c->flags |= is_signalling(*a) ? INVALID : 0;
        /* of two, the quiet one; of two alike, the larger one */
        if (!chosen || (is_signalling(*chosen) && !is_signalling(*a)))
            chosen = a;
        else if (is_signalling(*chosen) == is_signalling(*a) &&
                 (a->bits > chosen->bits || (a->bits == chosen->bits && a->top < chosen->top)))
            chosen = a;
    }
    if (!chosen)
        return 0;
    *answer = (extended){chosen->bits | INTEGER_BIT >> 1, chosen->top};
    return 1;
}

static extended f2xm1(context *c, extended x)
{
    if (is_zero(x))
        return x;
    if (is_infinite(x))
        return sign_of(x) ? (extended){INTEGER_BIT, 0x8000 | BIAS} : x;
    real argument = to_real(x);
    if (argument.exponent < 0)
        return to_extended(c, exponential_less_one(multiply(argument, LN2)), 1);
    if (argument.exponent == 0 && argument.bits == TOP_BIT)
        return to_extended(c, argument.sign ? scaled(argument, -1) : argument, 0);
    c->flags |= INEXACT; /* out of range: undefined, and the operand in practice */
    return x;
}

static extended fpatan(context *c, extended y, extended x)
{
    int sign = sign_of(y);
    real angle;
    if (is_infinite(y))
        angle = !is_infinite(x) ? HALF_PI : sign_of(x) ? THREE_QUARTERS_PI : QUARTER_PI;
    else if (is_zero(y) || is_infinite(x)) {
        if (!sign_of(x))
            return zero(sign);
        angle = PI;
    } else if (is_zero(x))
        angle = HALF_PI;
    else {
        real a = to_real(y), b = to_real(x);
        a.sign = b.sign = 0;
        int steep = is_less(b, a);
        angle = arctangent(steep ? divide(b, a) : divide(a, b));
        if (sign_of(x) && !steep)
            angle = subtract(PI, angle);
        else if (steep)
            angle = sign_of(x) ? add(HALF_PI, angle) : subtract(HALF_PI, angle);
    }
    angle.sign = sign;
    return to_extended(c, angle, 1);
}

/* y times a logarithm: of a number that is zero, infinite, or neither (value) */
static extended times_logarithm(context *c, extended y, int is_pole, int is_infinite_x, real value, int exact)
{
    int sign = sign_of(y);
    if (is_pole || is_infinite_x) {
        if (is_zero(y))
            return invalid(c);
        if (is_pole && !is_infinite(y))
            c->flags |= DIVISION;
        return infinity(sign ^ is_pole);
    }
    if (is_infinite(y))
        return value.bits ? infinity(sign ^ value.sign) : invalid(c);
    if (is_zero(y) || !value.bits)
        return zero(sign ^ value.sign);
    return to_extended(c, multiply(to_real(y), value), !exact);
}

static extended fyl2x(context *c, extended y, extended x)
{
    real value = {0, 0, 0};
    int number = !is_zero(x) && !is_infinite(x), power = 0;
    if (sign_of(x) && !is_zero(x))
        return invalid(c);
    if (number) {
        value = logarithm(to_real(x));
        power = !(to_real(x).bits << 1);
    }
    return times_logarithm(c, y, is_zero(x), is_infinite(x), value, power);
}

static extended fyl2xp1(context *c, extended y, extended x)
{
    real argument = to_real(x), value = {sign_of(x), 0, 0};
    int exact = 0;
    if (is_infinite(x) && sign_of(x))
        return invalid(c);
    if (!is_zero(x) && !is_infinite(x)) {
        real sum = add(ONE, argument);
        if (!sum.bits)
            return times_logarithm(c, y, 1, 0, value, 0);
        if (sum.sign)
            return invalid(c);
        int near_one = argument.exponent < -2;
        value = near_one ? logarithm_near_one(argument) : logarithm(sum);
        exact = !near_one && !(sum.bits << 1);
    }
    return times_logarithm(c, y, 0, is_infinite(x), value, exact);
}

/* FPREM and FPREM1; conditions: C0, C2, C3, C1 */
static extended remainder_of(context *c, extended x, extended y, int nearest, unsigned *conditions)
{
    if (is_infinite(x) || is_zero(y))
        return invalid(c);
    if (is_zero(x))
        return x;
    real a = to_real(x), b = to_real(y);
    if (is_infinite(y))
        return to_extended(c, a, 0);
    int apart = a.exponent - b.exponent;
    uint64_t rest = (uint64_t)(a.bits >> 64), divisor = (uint64_t)(b.bits >> 64), quotient = 0;
    if (apart < (nearest ? -1 : 0))
        return to_extended(c, a, 0);
    int steps = apart < 64 ? apart : 32 + apart % 32, partial = apart >= 64;
    if (partial)
        *conditions |= C2;
    int exponent = partial ? a.exponent - steps : b.exponent; /* of the divisor in the last step */
    int over = 0;                                             /* a bit above rest */
    for (int i = 0; i <= steps; i++) {
        quotient <<= 1;
        if (over || rest >= divisor) {
            rest -= divisor;
            quotient |= 1;
        }
        if (i < steps) {
            over = (int)(rest >> 63);
            rest <<= 1;
        }
    }
    real left = normal(a.sign, exponent, (u128)rest << 64);
    if (apart < 0)
        left = a; /* it is below the divisor */
    if (partial)
        return to_extended(c, left, 0);
    if (nearest && left.bits) {
        real twice = scaled(left, 1), other = b;
        twice.sign = other.sign = 0;
        if (is_less(other, twice) || (!is_less(twice, other) && quotient & 1)) {
            other.sign = !left.sign;
            left = add(left, other);
            left.sign = left.bits ? left.sign : a.sign;
            quotient++;
        }
    }
    *conditions |= (quotient & 4 ? C0 : 0) | (quotient & 2 ? C3 : 0) | (quotient & 1 ? C1 : 0);
    left.sign = left.bits ? left.sign : a.sign;
    return to_extended(c, left, 0);
}

/* ---- instructions ----------------------------------------------------------------------------------------- */

typedef struct {
    extended old, next, pushed; /* what ST(0), ST(1) and the register above ST(0) hold now, as they were called before */
    unsigned status, changed;   /* changed: bits 0, 1, 2 for those */
    int move;                   /* of the top: 1 popped, -1 pushed */
} outcome;

static int is_angle(int opcode) { return opcode == FSIN || opcode == FCOS || opcode == FSINCOS || opcode == FPTAN; }
static int is_pushing(int opcode) { return opcode == FSINCOS || opcode == FPTAN; }
static int is_popping(int opcode) { return opcode == FYL2X || opcode == FYL2XP1 || opcode == FPATAN; }
static int is_binary(int opcode) { return is_popping(opcode) || opcode == FPREM || opcode == FPREM1; }

static void angle(context *c, int opcode, outcome *o)
{
    extended x = o->old, one = {INTEGER_BIT, BIAS};
    if (is_zero(x)) {
        o->old = opcode == FCOS ? one : x;
        o->pushed = one;
        return;
    }
    unsigned quadrant;
    real argument = reduce(to_real(x), &quadrant), first, second = ONE;
    if (opcode == FPTAN) {
        first = tangent(argument, quadrant);
        o->pushed = one;
    } else {
        real s = sine(argument), k = cosine(argument);
        first = quadrant & 1 ? k : s;
        second = quadrant & 1 ? s : k;
        first.sign ^= quadrant >> 1;
        second.sign ^= (quadrant + 1) >> 1 & 1;
    }
    if (opcode == FSINCOS)
        o->pushed = to_extended(c, second, 1);
    o->old = to_extended(c, opcode == FCOS ? second : first, 1);
}

static void compute(context *c, int opcode, outcome *o, unsigned *conditions)
{
    extended both[2] = {o->old, o->next}, answer;
    int binary = is_binary(opcode);
    if (not_numbers(c, both, binary ? 2 : 1, &answer)) {
        o->old = o->next = o->pushed = answer;
        return;
    }
    if (is_angle(opcode) && is_infinite(o->old)) {
        o->old = o->pushed = invalid(c);
        return;
    }
    int denormal = is_denormal(o->old) || (binary && is_denormal(o->next));
    switch (opcode) {
    case F2XM1: o->old = f2xm1(c, o->old); break;
    case FYL2X: o->next = fyl2x(c, o->next, o->old); break;
    case FYL2XP1: o->next = fyl2xp1(c, o->next, o->old); break;
    case FPATAN: o->next = fpatan(c, o->next, o->old); break;
    case FPREM:
    case FPREM1: o->old = remainder_of(c, o->old, o->next, opcode == FPREM1, conditions); break;
    default: angle(c, opcode, o);
    }
    if (opcode != FPREM && opcode != FPREM1) /* those have a use of their own for C1 */
        *conditions |= c->up ? C1 : 0;
    if (denormal && !(c->flags & (INVALID | DIVISION)))
        c->flags |= DENORMAL;
}

static outcome execute(int opcode, unsigned control, unsigned status, unsigned empty, extended st0, extended st1)
{
    context c = {control, 0, 0};
    unsigned conditions = 0;
    outcome o = {st0, st1, {0, 0}, 0, 0, 0};
    int underflow = empty & 1 || (is_binary(opcode) && empty & 2), overflow = is_pushing(opcode) && !(empty & 4);
    if (underflow || overflow) {
        o.old = o.next = o.pushed = invalid(&c);
        c.flags |= STACK;
        conditions = underflow ? 0 : C1;
    } else if (is_angle(opcode) && !is_infinite(st0) && !is_nan(st0) && !is_unsupported(st0) &&
               exponent_of(st0) >= BIAS + 63) {
        o.status = (status & ~(unsigned)(C1 | C2)) | C2;
        return o;
    } else {
        compute(&c, opcode, &o, &conditions);
    }
    unsigned unmasked = c.flags & ~control & EXCEPTIONS;
    unsigned cleared = opcode == FPREM || opcode == FPREM1 ? CONDITIONS : is_angle(opcode) ? C1 | C2 : C1;
    /* these come before anything is computed: operands and stack stay */
    int refused = (unmasked & (INVALID | DENORMAL | DIVISION)) != 0;
    if (refused) {
        c.flags &= INVALID | DENORMAL | DIVISION | STACK;
        if (!(c.flags & STACK))
            conditions = 0;
    } else {
        o.move = is_popping(opcode) ? 1 : is_pushing(opcode) ? -1 : 0;
        o.changed = is_popping(opcode) ? 2 : is_pushing(opcode) ? 5 : 1;
    }
    o.status = (status & ~cleared) | conditions | c.flags;
    if (unmasked)
        o.status |= SUMMARY | BUSY;
    o.status = (o.status & ~0x3800u) | ((o.status + (unsigned)(o.move * 0x800)) & 0x3800u);
    return o;
}

static int take_extended(const Py_buffer *b, extended *a)
{
    const uint8_t *bytes = b->buf;
    if (b->len != 10) {
        PyErr_SetString(PyExc_ValueError, "an 80-bit number has 10 bytes");
        return 0;
    }
    a->bits = 0;
    for (int i = 7; i >= 0; i--)
        a->bits = a->bits << 8 | bytes[i];
    a->top = (uint16_t)(bytes[8] | bytes[9] << 8);
    return 1;
}

static PyObject *give_extended(extended a, int changed)
{
    uint8_t bytes[10];
    if (!changed)
        Py_RETURN_NONE;
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(a.bits >> 8 * i);
    bytes[8] = (uint8_t)a.top;
    bytes[9] = (uint8_t)(a.top >> 8);
    return PyBytes_FromStringAndSize((const char *)bytes, 10);
}

static PyObject *x87_execute(PyObject *Py_UNUSED(module), PyObject *args)
{
    static const int opcodes[] = {F2XM1, FYL2X, FPTAN, FPATAN, FPREM1, FPREM, FYL2XP1, FSINCOS, FSIN, FCOS};
    int opcode, known = 0;
    unsigned control, status, empty;
    Py_buffer b0, b1;
    if (!PyArg_ParseTuple(args, "iIIIy*y*", &opcode, &control, &status, &empty, &b0, &b1))
        return NULL;
    extended st0, st1;
    int taken = take_extended(&b0, &st0) && take_extended(&b1, &st1);
    PyBuffer_Release(&b0);
    PyBuffer_Release(&b1);
    for (size_t i = 0; i < sizeof opcodes / sizeof *opcodes; i++)
        known |= opcodes[i] == opcode;
    if (taken && !known)
        PyErr_Format(PyExc_ValueError, "d9 %x is none of these instructions", opcode);
    if (!taken || !known)
        return NULL;
    outcome o = execute(opcode, control, status, empty, st0, st1);
    return Py_BuildValue("IiNNN", o.status, o.move, give_extended(o.old, o.changed & 1),
                         give_extended(o.next, o.changed & 2), give_extended(o.pushed, o.changed & 4));
}

static PyMethodDef methods[] = {
    {"execute", x87_execute, METH_VARARGS,
     "execute(opcode, control, status, empty, st0, st1) -> (status, move of the top, st0, st1, pushed)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_x87", .m_doc = "x87's transcendental instructions", .m_size = -1, .m_methods = methods,
};

PyMODINIT_FUNC PyInit__x87(void)
{
    return PyModule_Create(&module);
}
