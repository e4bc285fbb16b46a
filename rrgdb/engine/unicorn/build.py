"""Which engine this is."""

from __future__ import annotations

import unicorn
from unicorn.unicorn_py3 import unicorn as binding


def build_id() -> str:
    """What a saved engine state depends on: the Unicorn version and the layout of its CPU structures."""
    return f"unicorn-{unicorn.__version__}-{binding.uclib.uc_version(None, None):#x}"
