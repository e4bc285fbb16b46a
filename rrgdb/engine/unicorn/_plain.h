/* A family of which nothing is known here: instructions of four bytes, of which the filters find those of interest. */
#pragma once
#include "_classes.h"
#include "_family.h"

static uint32_t plain_plain_length(const Core *c, const uint8_t *b, uint32_t n)
{
    return n < 4 || filtered(c, b, 4, 0) ? 0 : 4;
}

static const Family plain_family = {
    .name = "plain",
    .plain_length = plain_plain_length,
};
