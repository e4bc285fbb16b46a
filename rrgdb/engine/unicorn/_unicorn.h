/* What is used of unicorn.h, 2.1. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define UC_HOOK_INTR (1 << 0)
#define UC_HOOK_CODE (1 << 2)
#define UC_HOOK_BLOCK (1 << 3)
#define UC_HOOK_MEM_WRITE_PROT (1 << 8)
#define UC_HOOK_MEM_INVALID (0x3f << 4)
#define UC_HOOK_MEM_READ (1 << 10)
#define UC_HOOK_MEM_WRITE (1 << 11)
#define UC_HOOK_INSN_INVALID (1 << 14)
#define UC_HOOK_TLB_FILL (1 << 17)
#define UC_TLB_CPU 0
#define UC_TLB_VIRTUAL 1
#define UC_PROT_READ 1
#define UC_PROT_WRITE 2
#define UC_PROT_RW 3
#define UC_PROT_EXEC 4
#define UC_PROT_RX 5
#define UC_PROT_RWX 7
#define UC_MEM_WRITE 17
#define UC_MEM_FETCH 18
#define UC_MEM_WRITE_UNMAPPED 20
#define UC_MEM_FETCH_UNMAPPED 21
#define UC_ERR_WRITE_UNMAPPED 7
#define UC_ERR_FETCH_UNMAPPED 8
#define UC_ERR_EXCEPTION 21
#define UC_MEM_WRITE_PROT 22
#define UC_MEM_FETCH_PROT 24

#define CTL(type, args, io) ((type) | (args) << 26 | (unsigned)(io) << 30)
#define CTL_TB_REQUEST CTL(8, 2, 3)
#define CTL_TB_REMOVE CTL(9, 2, 1)
#define CTL_TB_FLUSH CTL(10, 0, 1)
#define CTL_TLB_FLUSH CTL(11, 0, 1)
#define CTL_TLB_TYPE CTL(12, 1, 1)

typedef struct { uint64_t paddr; int perms; } tlb_result;          /* uc_tlb_entry */
typedef struct { uint64_t pc; uint16_t icount, size; } translated; /* uc_tb */

typedef int (*emu_start_fn)(void *, uint64_t, uint64_t, uint64_t, size_t);
typedef int (*emu_stop_fn)(void *);
typedef int (*reg_fn)(void *, int, void *);
typedef int (*hook_add_fn)(void *, size_t *, int, void *, void *, uint64_t, uint64_t, ...);
typedef int (*hook_del_fn)(void *, size_t);
typedef int (*translate_fn)(void *, uint64_t, int, uint64_t *);
typedef int (*ctl_fn)(void *, unsigned, ...);
typedef int (*context_fn)(void *, void *);
typedef int (*mmio_fn)(void *, uint64_t, size_t, void *, void *, void *, void *);
typedef int (*protect_fn)(void *, uint64_t, size_t, uint32_t);
typedef int (*map_fn)(void *, uint64_t, size_t, uint32_t, void *);
typedef int (*unmap_fn)(void *, uint64_t, size_t);
