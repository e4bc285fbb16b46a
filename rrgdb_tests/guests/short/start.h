    .text
#ifdef __thumb__
    .syntax unified
    .thumb
    .thumb_func
#endif
    .globl _start
_start:
