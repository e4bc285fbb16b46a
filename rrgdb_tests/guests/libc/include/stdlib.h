#ifndef STDLIB_H
#define STDLIB_H
#include <stddef.h>
void *malloc(size_t size);
void free(void *pointer);
void exit(int status) __attribute__((noreturn));
#endif
