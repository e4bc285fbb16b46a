"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass, field

_MOST_LINES = 1000


@dataclass
class CheckResult:
    """``corruptions`` put data at risk; ``leaks`` only cost space. At most 1000 lines each; the counts are exact.

    ``image_end``: bytes up to the end of the last cluster in use. Of the active disk: ``total_clusters``; how many of
    them are allocated; and of these, how many do not follow the one before in the file (compressed ones never do), and
    how many are compressed.
    """

    corruptions: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    corruption_count: int = 0
    leak_count: int = 0
    image_end: int = 0
    total_clusters: int = 0
    allocated_clusters: int = 0
    fragmented_clusters: int = 0
    compressed_clusters: int = 0

    @property
    def clean(self) -> bool:
        """Neither corruptions nor leaks."""
        return not self.corruption_count and not self.leak_count

    def corruption(self, line: str, count: int = 1) -> None:
        """Add ``count`` corruptions that one line tells of."""
        self.corruption_count += count
        if len(self.corruptions) < _MOST_LINES:
            self.corruptions.append(line)

    def leak(self, line: str, count: int = 1) -> None:
        """Add ``count`` leaks that one line tells of."""
        self.leak_count += count
        if len(self.leaks) < _MOST_LINES:
            self.leaks.append(line)
