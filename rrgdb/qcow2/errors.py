"""Errors of the qcow2 library. Misuse by the caller is ``ValueError``; a full disk is the ``OSError`` of the system."""

from __future__ import annotations


class Qcow2Error(Exception):
    """The image is not what the format says it must be. One line: file, offset, what was expected."""


class Qcow2UnsupportedError(Qcow2Error):
    """The image is (or may be) valid but uses a feature that this library does not offer."""
