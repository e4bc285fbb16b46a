"""Exact execution. The native half, ``_hot``, is built when rrgdb is installed."""

from importlib.util import find_spec

if find_spec("rrgdb.engine._hot") is None:
    raise ImportError(
        "rrgdb's native part is not built here: install rrgdb (pip install .) and run it as `rrgdb`, "
        "or with `python -P -m rrgdb` inside its source tree"
    )
