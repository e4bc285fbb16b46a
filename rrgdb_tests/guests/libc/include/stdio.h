#ifndef STDIO_H
#define STDIO_H
int putchar(int c);
int puts(const char *text);
/* %d %u %x %c %s %p %f %%, flags 0 and -, width, precision, l */
int printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
#endif
