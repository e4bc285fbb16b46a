"""Page tables, looked at from outside: nothing of the guest changes.

Unicorn's own translation does what an access would do: it sets accessed bits in RISC-V's and x86's tables, and where
nothing is mapped, x86's CR2; and it refuses what the present mode may not access. One module for each family says which
tables are in use, and what an entry means; ``tables`` has what is done with that.
"""

from __future__ import annotations

from rrgdb.engine.paging.tables import Mapped, Permission, ReadPhysical, ReadRegister, TooManyError, Translation

__all__ = ["Mapped", "Permission", "ReadPhysical", "ReadRegister", "TooManyError", "Translation"]
