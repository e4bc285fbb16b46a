"""From an image, a script or a recording to a timeline: the only room that knows every kind of guest, engine and store.
What it hands out is complete."""

from typing import TYPE_CHECKING

from rrgdb.lazy import offered

if TYPE_CHECKING:
    from rrgdb.opening.at_rest import replay
    from rrgdb.opening.limits import BUDGET, INTERVAL
    from rrgdb.opening.live import record
    from rrgdb.opening.opened import Opened
    from rrgdb.opening.options import BootFiles, GuestOptions, LoaderFile, NewDisk, OptionError
    from rrgdb.opening.scripts import record_script
    from rrgdb.timeline.options import MEMORY_BUDGET

__all__ = [
    "BUDGET",
    "INTERVAL",
    "MEMORY_BUDGET",
    "BootFiles",
    "GuestOptions",
    "LoaderFile",
    "NewDisk",
    "Opened",
    "OptionError",
    "record",
    "record_script",
    "replay",
]

_OPTIONS = ("BootFiles", "GuestOptions", "LoaderFile", "NewDisk", "OptionError")
__getattr__ = offered(
    __name__,
    {name: f"rrgdb.opening.options:{name}" for name in _OPTIONS}
    | {
        "BUDGET": "rrgdb.opening.limits:BUDGET",
        "INTERVAL": "rrgdb.opening.limits:INTERVAL",
        "MEMORY_BUDGET": "rrgdb.timeline.options:MEMORY_BUDGET",
        "Opened": "rrgdb.opening.opened:Opened",
        "record": "rrgdb.opening.live:record",
        "record_script": "rrgdb.opening.scripts:record_script",
        "replay": "rrgdb.opening.at_rest:replay",
    },
)
