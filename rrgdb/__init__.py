"""rrgdb: a GDB remote stub for reverse debugging, and recordings as Python objects (``rrgdb.open``)."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version

from rrgdb.api import Recording, Snapshot, Stop, StopKind
from rrgdb.api import open_recording as open
from rrgdb.arch import ARCHES
from rrgdb.arch.base import MemoryFault
from rrgdb.attached import Session, attach
from rrgdb.recording.doors import Divergence
from rrgdb.timeline.timeline import TimelineError

try:
    __version__ = _version("rrgdb")
except PackageNotFoundError:
    __version__ = "unknown"

__all__ = [
    "ARCHES",
    "Divergence",
    "MemoryFault",
    "Recording",
    "Session",
    "Snapshot",
    "Stop",
    "StopKind",
    "TimelineError",
    "__version__",
    "attach",
    "open",
]
