"""Errors of the qcow2 library. A full disk is the ``OSError`` of the system."""

from __future__ import annotations


class Qcow2Error(Exception):
    """The image is not what the format says it must be. One line: file, offset, what was expected."""


class Qcow2UnsupportedError(Qcow2Error):
    """The image is (or may be) valid but uses a feature that this library does not offer."""


class Qcow2UsageError(ValueError):
    """What the caller asks for is not possible. One line: what was expected."""
