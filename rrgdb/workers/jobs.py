"""How many worker processes there are unless the user says so."""

from __future__ import annotations

import os

MAX_JOBS = 8


def default_jobs() -> int:
    """As many as there are processors for this process, within reason."""
    return max(1, min(len(os.sched_getaffinity(0)), MAX_JOBS))
