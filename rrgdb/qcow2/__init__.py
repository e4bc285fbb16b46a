"""A self-contained qcow2 library: disks, internal snapshots with VM states, overlays. See README.md."""

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
