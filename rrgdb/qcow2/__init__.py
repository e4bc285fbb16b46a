"""A self-contained qcow2 library: disks, internal snapshots with VM states, overlays. See README.md."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backing import Backing, RawFile
    from .bitmaps import Bitmap
    from .errors import Qcow2Error, Qcow2UnsupportedError, Qcow2UsageError
    from .extents import Extent
    from .image import Image
    from .info import Info
    from .problems import CheckResult
    from .repair import RepairResult, check_image, repair_image
    from .snapshot_table import Snapshot
    from .view import View

__all__ = [
    "Backing",
    "Bitmap",
    "CheckResult",
    "Extent",
    "Image",
    "Info",
    "Qcow2Error",
    "Qcow2UnsupportedError",
    "Qcow2UsageError",
    "RawFile",
    "RepairResult",
    "Snapshot",
    "View",
    "check_image",
    "repair_image",
]

_PLACES = {
    "Backing": "backing",
    "Bitmap": "bitmaps",
    "CheckResult": "problems",
    "Extent": "extents",
    "Image": "image",
    "Info": "info",
    "Qcow2Error": "errors",
    "Qcow2UnsupportedError": "errors",
    "Qcow2UsageError": "errors",
    "RawFile": "backing",
    "RepairResult": "repair",
    "Snapshot": "snapshot_table",
    "View": "view",
    "check_image": "repair",
    "repair_image": "repair",
}
"""name -> the module that has it, imported when the name is asked for first"""


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value
