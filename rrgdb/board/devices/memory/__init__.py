"""Devices that are memory, or hold what firmware asks for."""
