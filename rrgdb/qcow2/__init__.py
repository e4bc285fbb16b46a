"""A self-contained qcow2 library: disks, internal snapshots with VM states, overlays. See README.md."""

from .check import CheckResult
from .errors import Qcow2Error, Qcow2UnsupportedError
from .image import Image, Info
from .snapshot_table import Snapshot
from .view import View

__all__ = ["CheckResult", "Image", "Info", "Qcow2Error", "Qcow2UnsupportedError", "Snapshot", "View"]
