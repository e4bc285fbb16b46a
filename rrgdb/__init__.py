"""rrgdb: a GDB remote stub for reverse debugging, and recordings as Python objects (``rrgdb.open``)."""

from typing import TYPE_CHECKING

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

_PLACES = {
    "ARCHES": "arch",
    "Divergence": "recording.door",
    "Error": "errors",
    "MemoryFault": "arch.cpu",
    "Recording": "api",
    "Session": "attached",
    "Snapshot": "api",
    "Stop": "api",
    "StopKind": "api",
    "TimelineError": "timeline.timeline",
    "attach": "attached",
    "open": "api",
}
"""name -> the module that has it, imported when the name is asked for first: the command line must be able to say what
is wrong with an import"""


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = _version()
    elif name in _PLACES:
        from importlib import import_module  # noqa: PLC0415

        value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), {"open": "open_recording"}.get(name, name))
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version("rrgdb")
    except PackageNotFoundError:
        return "unknown"
