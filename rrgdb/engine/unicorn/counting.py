"""Which of two ways blocks are counted in: see "Counting inside the generated code" in docs/engine.md."""

from __future__ import annotations

import os

from rrgdb.engine.unicorn import _hot

INLINE = "RRGDB_INLINE"
"""in the environment: 0 if blocks are to be counted by hooks alone"""


def inlines() -> bool:
    """Whether they are counted inside the code that Unicorn generates, where that can be written."""
    return bool(_hot.CAN_INLINE) and os.environ.get(INLINE) != "0"


def way() -> str:
    """For a person."""
    if inlines():
        return "blocks are counted inside the generated code"
    return f"blocks are counted by hooks ({INLINE}=0)" if _hot.CAN_INLINE else "blocks are counted by hooks"
