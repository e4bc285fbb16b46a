"""Exact execution: what an engine is, guest RAM, and how its written pages are known."""
