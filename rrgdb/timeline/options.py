"""What a user may choose of a timeline, as data."""

MEMORY_BUDGET = 256 << 20
"""bytes that checkpoints may take unless somebody says otherwise"""
EXPORTED = ("core", "raw")
"""what the state at a position can be written as"""
