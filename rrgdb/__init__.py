"""rrgdb: a GDB remote stub for reverse debugging, and recordings as Python objects (``rrgdb.open``)."""

from typing import TYPE_CHECKING

from rrgdb.lazy import offered

if TYPE_CHECKING:
    from rrgdb.api import Recording, Snapshot, Stop, StopKind
    from rrgdb.api import open_recording as open
    from rrgdb.arch import ARCHES
    from rrgdb.arch.cpu import MemoryFault
    from rrgdb.attached import Session, attach
    from rrgdb.errors import Error
    from rrgdb.recording.door import Divergence
    from rrgdb.timeline.timeline import TimelineError

    __version__: str

__all__ = [
    "ARCHES",
    "Divergence",
    "Error",
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

__getattr__ = offered(
    __name__,
    {
        "ARCHES": "rrgdb.arch:ARCHES",
        "Divergence": "rrgdb.recording.door:Divergence",
        "Error": "rrgdb.errors:Error",
        "MemoryFault": "rrgdb.arch.cpu:MemoryFault",
        "Recording": "rrgdb.api:Recording",
        "Session": "rrgdb.attached:Session",
        "Snapshot": "rrgdb.api:Snapshot",
        "Stop": "rrgdb.api:Stop",
        "StopKind": "rrgdb.api:StopKind",
        "TimelineError": "rrgdb.timeline.timeline:TimelineError",
        "__version__": "rrgdb.version:VERSION",
        "attach": "rrgdb.attached:attach",
        "open": "rrgdb.api:open_recording",
    },
)
"""the command line must be able to say what is wrong with an import"""


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
