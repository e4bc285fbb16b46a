"""What an ELF file for Arm says of its CPU: the build attributes ("Addenda to, and Errata in, the ABI for the Arm
Architecture", section 3). The file is hostile: whatever is malformed says nothing."""

from __future__ import annotations

import struct

_SECTION = 0x70000003
"""SHT_ARM_ATTRIBUTES"""
_SECTIONS_AT, _HEADERS = 0x20, struct.Struct("<HHH")
_MAX_SECTIONS = 4096
_MAX_BYTES = 1 << 16
_TAG_FILE, _TAG_RAW_NAME, _TAG_NAME, _TAG_ARCH, _TAG_PROFILE, _TAG_COMPATIBILITY = 1, 4, 5, 6, 7, 32
_M_ARCHITECTURES = frozenset((11, 12, 13, 16, 17, 21))
"""v6-M, v6S-M, v7E-M, v8-M.base, v8-M.main, v8.1-M.main"""


def is_m_profile(data: bytes) -> bool:
    """Whether a little-endian ELF32 file was built for the M profile."""
    try:
        attributes = _attributes(_section(data))
    except (struct.error, IndexError, ValueError):
        return False
    return attributes.get(_TAG_PROFILE) == ord("M") or attributes.get(_TAG_ARCH) in _M_ARCHITECTURES


def _section(data: bytes) -> bytes:
    (table,) = struct.unpack_from("<I", data, _SECTIONS_AT)
    size, count, _ = _HEADERS.unpack_from(data, 0x2E)
    if size < 40 or count > _MAX_SECTIONS:
        raise ValueError("no section headers")
    for n in range(count):
        _, kind, _, _, offset, length = struct.unpack_from("<6I", data, table + n * size)
        if kind == _SECTION:
            return data[offset : offset + min(length, _MAX_BYTES)]
    raise ValueError("no build attributes")


def _attributes(section: bytes) -> dict[int, int]:
    """The numbers of the whole file's attributes, by tag."""
    if section[0] != ord("A"):
        raise ValueError("an unknown format")
    at = 1
    while at < len(section):
        (length,) = struct.unpack_from("<I", section, at)
        name = section.index(b"\0", at + 4)
        if section[at + 4 : name] == b"aeabi":
            return _of_file(section[name + 1 : at + length])
        at += max(length, 5)
    return {}


def _of_file(part: bytes) -> dict[int, int]:
    if part[0] != _TAG_FILE:
        raise ValueError("attributes of sections before those of the file")
    (end,) = struct.unpack_from("<I", part, 1)
    found, at = dict[int, int](), 5
    while at < min(end, len(part)):
        tag, at = _number(part, at)
        # Tags of names, and odd ones from 32 on, have a string.
        if tag in (_TAG_RAW_NAME, _TAG_NAME) or (tag > _TAG_COMPATIBILITY and tag & 1):
            at = part.index(b"\0", at) + 1
            continue
        found[tag], at = _number(part, at)
        if tag == _TAG_COMPATIBILITY:
            at = part.index(b"\0", at) + 1
    return found


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A ULEB128 number of 35 bits at most, and where it ends."""
    value = 0
    for n in range(5):
        value |= (data[at + n] & 0x7F) << 7 * n
        if not data[at + n] & 0x80:
            return value, at + n + 1
    raise ValueError("a number of too many bytes")
