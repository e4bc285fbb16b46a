"""A self-contained qcow2 library: disks, internal snapshots with VM states, overlays. See README.md."""

from rrgdb.qcow2.check import CheckResult
from rrgdb.qcow2.errors import Qcow2Error, Qcow2UnsupportedError
from rrgdb.qcow2.image import Image, Info
from rrgdb.qcow2.snapshot_table import Snapshot
from rrgdb.qcow2.view import View

__all__ = ["CheckResult", "Image", "Info", "Qcow2Error", "Qcow2UnsupportedError", "Snapshot", "View"]
