"""rrgdb: a GDB remote stub for reverse debugging.

``rrgdb.open(DIR)`` gives a recording as Python objects; see ``rrgdb.api``.
"""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version

from rrgdb.arch import ARCHES

try:
    __version__ = _version("rrgdb")
except PackageNotFoundError:
    __version__ = "unknown"

__all__ = ["ARCHES", "__version__"]
