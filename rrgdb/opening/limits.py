"""What the user gets unless he asks for something else."""

INTERVAL = 0.05
"""seconds of guest time between automatic snapshots"""
BUDGET = 4 << 30
"""bytes that the snapshot store may take"""
