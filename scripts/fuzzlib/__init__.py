"""Fuzzing: what `scripts/fuzz` runs."""
