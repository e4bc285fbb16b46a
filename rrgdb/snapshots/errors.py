"""What goes wrong with snapshots."""

from __future__ import annotations

from rrgdb.errors import Error


class StoreError(Error):
    """The store cannot be read or written: one line with the file."""


class NoRoomError(StoreError):
    """A snapshot might not fit into the budget: nothing was taken."""
