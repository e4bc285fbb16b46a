"""From an image, a script or a recording to a timeline: the only room that knows every kind of guest, engine and store.
What it hands out is complete."""

from rrgdb.opening.at_rest import replay
from rrgdb.opening.live import record, record_script
from rrgdb.opening.opened import Opened
from rrgdb.opening.options import BUDGET, INTERVAL, BootFiles, GuestOptions, LoaderFile, NewDisk, OptionError
from rrgdb.timeline.marks import MEMORY_BUDGET

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
