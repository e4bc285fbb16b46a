/* A C library just large enough for the guests: first-fit malloc, a printf subset, memory and string functions. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"

extern char __heap_start[], __heap_end[];

struct block {
    size_t size; /* bytes behind the header, a multiple of 16 */
    struct block *next;
    size_t used;
    size_t pad;
};

static struct block *blocks;

void *malloc(size_t size)
{
    size = (size + 15) & ~(size_t)15;
    if (!blocks) {
        blocks = (struct block *)__heap_start;
        blocks->size = (size_t)(__heap_end - __heap_start) - sizeof *blocks;
        blocks->next = NULL;
        blocks->used = 0;
    }
    for (struct block *b = blocks; b; b = b->next) {
        if (b->used || b->size < size)
            continue;
        if (b->size >= size + sizeof *b + 16) {
            struct block *rest = (struct block *)((char *)(b + 1) + size);
            rest->size = b->size - size - sizeof *b;
            rest->next = b->next;
            rest->used = 0;
            b->size = size;
            b->next = rest;
        }
        b->used = 1;
        return b + 1;
    }
    return NULL;
}

void free(void *pointer)
{
    if (!pointer)
        return;
    ((struct block *)pointer - 1)->used = 0;
    for (struct block *b = blocks; b && b->next;) {
        if (!b->used && !b->next->used) {
            b->size += sizeof *b + b->next->size;
            b->next = b->next->next;
        } else {
            b = b->next;
        }
    }
}

void exit(int status)
{
    power_off(status);
}

void *memcpy(void *to, const void *from, size_t count)
{
    char *t = to;
    const char *f = from;
    while (count--)
        *t++ = *f++;
    return to;
}

void *memmove(void *to, const void *from, size_t count)
{
    char *t = to;
    const char *f = from;
    if (t < f)
        return memcpy(to, from, count);
    while (count--)
        t[count] = f[count];
    return to;
}

void *memset(void *to, int byte, size_t count)
{
    char *t = to;
    while (count--)
        *t++ = (char)byte;
    return to;
}

int memcmp(const void *left, const void *right, size_t count)
{
    const unsigned char *l = left, *r = right;
    for (; count; count--, l++, r++)
        if (*l != *r)
            return *l - *r;
    return 0;
}

size_t strlen(const char *text)
{
    size_t n = 0;
    while (text[n])
        n++;
    return n;
}

int strcmp(const char *left, const char *right)
{
    while (*left && *left == *right)
        left++, right++;
    return (unsigned char)*left - (unsigned char)*right;
}

int putchar(int c)
{
    uart_putc(c);
    return c;
}

void put_string(const char *text)
{
    while (*text)
        uart_putc(*text++);
}

int puts(const char *text)
{
    put_string(text);
    uart_putc('\n');
    return 0;
}

void put_hex(u32 value)
{
    for (int shift = 28; shift >= 0; shift -= 4)
        uart_putc("0123456789abcdef"[(value >> shift) & 15]);
}

void put_checksum(const char *name, u32 sum)
{
    put_string(name);
    put_string(" checksum ");
    put_hex(sum);
    uart_putc('\n');
}

u32 mix(u32 sum, u32 value)
{
    return (sum ^ value) * 16777619u;
}

/* Digits of value, last one at end[-1]; base 10 or 16. */
static char *digits(char *end, unsigned long value, unsigned base)
{
    do
        *--end = "0123456789abcdef"[value % base];
    while (value /= base);
    return end;
}

static int pad_out(const char *text, size_t length, int width, int left, char fill)
{
    int count = 0;
    if (!left)
        for (; width > (int)length; width--, count++)
            uart_putc(fill);
    for (size_t i = 0; i < length; i++, count++)
        uart_putc(text[i]);
    for (; left && width > count; count++)
        uart_putc(' ');
    return count;
}

int printf(const char *format, ...)
{
    va_list args;
    int count = 0;
    va_start(args, format);
    for (; *format; format++) {
        char buffer[48], *end = buffer + sizeof buffer, *start = end;
        int width = 0, precision = -1, left = 0, is_long = 0, negative = 0;
        char fill = ' ';
        if (*format != '%') {
            uart_putc(*format);
            count++;
            continue;
        }
        for (format++; *format == '-' || *format == '0'; format++) {
            left |= *format == '-';
            if (*format == '0')
                fill = '0';
        }
        for (; *format >= '0' && *format <= '9'; format++)
            width = width * 10 + *format - '0';
        if (*format == '.')
            for (precision = 0, format++; *format >= '0' && *format <= '9'; format++)
                precision = precision * 10 + *format - '0';
        for (; *format == 'l'; format++)
            is_long = 1;
        switch (*format) {
        case 'c':
            *--start = (char)va_arg(args, int);
            break;
        case 's': {
            const char *text = va_arg(args, const char *);
            count += pad_out(text, strlen(text), width, left, ' ');
            continue;
        }
        case 'd': {
            long value = is_long ? va_arg(args, long) : va_arg(args, int);
            negative = value < 0;
            start = digits(end, negative ? -(unsigned long)value : (unsigned long)value, 10);
            break;
        }
        case 'u':
        case 'x':
            start = digits(end, is_long ? va_arg(args, unsigned long) : va_arg(args, unsigned), *format == 'u' ? 10 : 16);
            break;
        case 'p':
            start = digits(end, va_arg(args, unsigned long), 16);
            *--start = 'x';
            *--start = '0';
            break;
        case 'f': {
            double value = va_arg(args, double), scale = 1.0;
            int places = precision < 0 ? 6 : precision > 8 ? 8 : precision;
            negative = value < 0;
            if (negative)
                value = -value;
            for (int i = 0; i < places; i++)
                scale *= 10.0;
            unsigned long whole = (unsigned long)value;
            unsigned long part = (unsigned long)((value - (double)whole) * scale + 0.5);
            if (part >= (unsigned long)scale) {
                whole++;
                part = 0;
            }
            for (int i = 0; i < places; i++, part /= 10)
                *--start = (char)('0' + part % 10);
            if (places)
                *--start = '.';
            start = digits(start, whole, 10);
            break;
        }
        default:
            *--start = *format;
        }
        if (negative)
            *--start = '-';
        count += pad_out(start, (size_t)(end - start), width, left, fill);
    }
    va_end(args);
    return count;
}
