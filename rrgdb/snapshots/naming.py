"""Which names a user may give to a snapshot."""

from __future__ import annotations

AUTOMATIC = "auto-"
"""names of automatic snapshots begin so"""
START = "start"
"""what the starting snapshot is called unless the user says otherwise; as a place to go to, always icount 0"""
_PLACES = (START, "end")
_LENGTH = 64
_BYTES = 255
"""in UTF-8; what an entry of qcow2's snapshot table is kept to"""


def problem(name: str) -> str | None:
    """Why a snapshot cannot be called so, in one line; None if it can. A name can be told from an icount."""
    if not name or not name.isprintable() or " " in name or len(name) > _LENGTH:
        return f"{name!r}: expected up to {_LENGTH} printable characters without spaces"
    if len(name.encode()) > _BYTES:
        return f"{name}: expected at most {_BYTES} bytes, found {len(name.encode())}"
    if name in _PLACES or name.startswith(AUTOMATIC):
        return f"{name}: this name is taken by rrgdb"
    try:
        int(name, 0)
    except ValueError:
        return None
    return f"{name}: a number is an icount, expected a name"
