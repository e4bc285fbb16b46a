/* The families that there are, each with its copies of the hooks. */
#pragma once
#include "_aarch64.h"
#include "_arm.h"
#include "_armv7m.h"
#include "_family.h"
#include "_hooks.h"
#include "_plain.h"
#include "_riscv.h"
#include "_x86.h"

#define FAMILIES(X) X(x86) X(arm) X(armv7m) X(aarch64) X(riscv) X(plain)

/* Generated code keeps a pointer to the CPU's registers in rbp. */
#if CAN_INLINE
#define REGISTERS_AT_HAND(core) ((Core *)(core))->at_hand = *(const uint8_t **)__builtin_frame_address(0)
#else
#define REGISTERS_AT_HAND(core) (void)(core)
#endif

#define DEFINE_HOOKS(name)                                                                                  \
    static void name##_on_block(void *uc, uint64_t addr, uint32_t size, void *user)                         \
    {                                                                                                       \
        (void)uc;                                                                                           \
        REGISTERS_AT_HAND(user);                                                                            \
        on_block(&name##_family, user, addr, size, __builtin_return_address(0));                            \
    }                                                                                                       \
    static void name##_on_inlined(void)                                                                     \
    {                                                                                                       \
        on_inlined(&name##_family, __builtin_return_address(0));                                            \
    }                                                                                                       \
    static void name##_on_code(void *uc, uint64_t addr, uint32_t size, void *user)                          \
    {                                                                                                       \
        (void)uc;                                                                                           \
        on_code(&name##_family, user, addr, size);                                                          \
    }                                                                                                       \
    static void name##_on_exact_code(void *uc, uint64_t addr, uint32_t size, void *user)                    \
    {                                                                                                       \
        (void)uc;                                                                                           \
        on_exact_code(&name##_family, user, addr, size);                                                    \
    }                                                                                                       \
    static void name##_on_first_code(void *uc, uint64_t addr, uint32_t size, void *user)                    \
    {                                                                                                       \
        (void)uc;                                                                                           \
        on_first_code(&name##_family, user, addr, size);                                                    \
    }                                                                                                       \
    static bool name##_on_tlb(void *uc, uint64_t va, int type, tlb_result *result, void *user)              \
    {                                                                                                       \
        (void)uc;                                                                                           \
        return on_tlb(&name##_family, user, va, type, result);                                              \
    }                                                                                                       \
    static void name##_on_access(void *uc, int type, uint64_t address, int size, int64_t value, void *user) \
    {                                                                                                       \
        (void)uc;                                                                                           \
        (void)value;                                                                                        \
        on_access(&name##_family, user, type, address, size);                                               \
    }                                                                                                       \
    static bool name##_on_invalid_memory(void *uc, int type, uint64_t address, int size, int64_t value,     \
                                         void *user)                                                        \
    {                                                                                                       \
        (void)uc;                                                                                           \
        return on_invalid_memory(&name##_family, user, type, address, size, value);                         \
    }                                                                                                       \
    static const Hooks name##_hooks = {                                                                     \
        .block = (void *)name##_on_block,                                                                   \
        .inlined = (void *)name##_on_inlined,                                                               \
        .code = (void *)name##_on_code,                                                                     \
        .exact_code = (void *)name##_on_exact_code,                                                         \
        .first_code = (void *)name##_on_first_code,                                                         \
        .tlb = (void *)name##_on_tlb,                                                                       \
        .access = (void *)name##_on_access,                                                                 \
        .invalid_memory = (void *)name##_on_invalid_memory,                                                 \
    };
FAMILIES(DEFINE_HOOKS)

#define FAMILY_ENTRY(name) {&name##_family, &name##_hooks},
static const struct { const Family *family; const Hooks *hooks; } families[] = {FAMILIES(FAMILY_ENTRY)};
#define FAMILY_COUNT (sizeof families / sizeof *families)
