"""RAM: which pages were written, whatever wrote them; what it costs; its bounds."""

from __future__ import annotations

import contextlib
import errno
import gc
import mmap
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrgdb.arch.cpu import MemoryFault
from rrgdb.engine import memory
from rrgdb.engine.memory import PAGE, ZERO_PAGE, PageNumbers, Ram
from rrgdb.engine.tracking import WAYS, PrivateCopies, Tracker, Way, WriteProtection, track
from rrgdb_tests.engine.unicorn.rig import CODE, DATA, Bench


@pytest.fixture(params=WAYS, scope="module")
def way(request: pytest.FixtureRequest) -> Way:
    """Each way to find written pages that this kernel has."""
    chosen: Way = request.param
    try:
        track(PAGE, [chosen]).close()
    except OSError:
        assert chosen is WriteProtection
        pytest.skip("the kernel has no asynchronous write protection (Linux 6.7)")
    return chosen


def numbers(*pages: int) -> PageNumbers:
    return np.array(sorted(pages), dtype=np.int64)


def dirty(ram: Ram) -> list[int]:
    return [int(n) for n in ram.dirty()]


def test_pages_are_dirty_from_their_first_write_to_their_cleaning(way: Way) -> None:
    ram = Ram(64 * PAGE, [way])
    ram.add_region(0x1000, 64 * PAGE)
    assert dirty(ram) == []
    ram.write(0x1000 + 3 * PAGE - 1, b"ab")
    ram.write(0x1000 + 63 * PAGE, b"c")
    assert dirty(ram) == [2, 3, 63]
    ram.clean(ram.dirty())
    assert dirty(ram) == []
    ram.write(0x1000 + 2 * PAGE, b"d")
    assert dirty(ram) == [2]
    assert ram.read(0x1000 + 3 * PAGE - 1, 2) == b"ab"
    assert ram.page(63)[:1] == b"c"
    ram.set_clean(numbers(2, 10), [b"x" * PAGE, b"y" * PAGE], numbers(2))
    assert dirty(ram) == []
    assert (ram.page(2), ram.page(10)) == (b"x" * PAGE, b"y" * PAGE)
    assert set(ram.populated().tolist()) >= {2, 3, 10, 63}
    assert len(set(ram.populated().tolist())) < 10


def test_reading_makes_nothing_dirty(way: Way) -> None:
    ram = Ram(16 * PAGE, [way])
    ram.add_region(0, 16 * PAGE)
    assert bytes(ram.view()) == bytes(16 * PAGE)
    assert dirty(ram) == []


def test_reading_where_nothing_ever_was_makes_dirty_once_at_most(way: Way) -> None:
    """Then the kernel does not tell reading and writing apart; the page holds zeros either way."""
    ram = Ram(4096 * PAGE, [way])
    ram.add_region(0, 4096 * PAGE)
    ram.write(3000 * PAGE, b"x")
    for page in (600, 2000, 3001):
        assert ram.page(page) == ZERO_PAGE
    assert {3000} <= set(dirty(ram)) <= {600, 2000, 3000, 3001}
    ram.clean(ram.dirty())
    for page in (600, 601, 2001, 3001, 3002):
        assert ram.page(page) == ZERO_PAGE
    assert dirty(ram) == []


def test_pages_that_the_kernel_takes_out_of_the_page_table_stay_dirty_or_clean() -> None:
    """As it does to swap them out."""
    try:
        ram = Ram(2048 * PAGE, [WriteProtection])
    except OSError:
        pytest.skip("the kernel has no asynchronous write protection (Linux 6.7)")
    ram.add_region(0, 2048 * PAGE)
    zap = partial(ram._map.madvise, mmap.MADV_DONTNEED)
    ram.write(600 * PAGE, b"a")
    zap()
    assert dirty(ram) == [600]
    ram.clean(ram.dirty())
    zap()
    assert dirty(ram) == []
    written = [600, *range(1024, 1536)]
    for n in written:
        ram.write(n * PAGE, b"b")
    assert dirty(ram) == written
    zap()
    assert dirty(ram) == written
    assert ram.page(600)[:1] == ram.page(1535)[:1] == b"b"
    ram.set_clean(numbers(*written), [b"c" * PAGE] * len(written), ram.dirty())
    zap()
    assert dirty(ram) == []
    assert ram.page(600) == b"c" * PAGE


def test_replacing_puts_pages_and_leaves_everything_clean_even_if_it_breaks_off(way: Way) -> None:
    ram = Ram(2048 * PAGE, [way])
    ram.add_region(0, 2048 * PAGE)
    ram.write(5 * PAGE, b"old")
    ram.write(1500 * PAGE, b"old")
    with ram.replacing(numbers(5, 700, 701, 1500), ram.dirty()) as to:
        to.put(numbers(5, 701), [b"x" * PAGE, b"y" * PAGE])
        to.view[700 * PAGE : 701 * PAGE] = b"z" * PAGE
        to.view[1500 * PAGE : 1501 * PAGE] = ZERO_PAGE
        assert to.zeros(numbers(5, 700, 1500, 1501)).tolist() == [False, False, True, True]
    assert dirty(ram) == []
    assert ram.contents(numbers(5, 700, 701, 1500)) == [b"x" * PAGE, b"z" * PAGE, b"y" * PAGE, ZERO_PAGE]
    ram.write(700 * PAGE, b"n")
    assert dirty(ram) == [700]
    with contextlib.suppress(KeyError), ram.replacing(numbers(5, 700), ram.dirty()) as to:
        to.put(numbers(5), [b"q" * PAGE])
        raise KeyError
    assert dirty(ram) == []
    assert ram.page(5) == b"q" * PAGE


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.sampled_from("wcsr")), max_size=60))
def test_what_the_kernel_tells_agrees_with_a_model(way: Way, steps: list[tuple[int, str]]) -> None:
    ram = Ram(256 * PAGE, [way])
    ram.add_region(0, 256 * PAGE)
    model: dict[int, bytes] = {}
    written: set[int] = set()
    for number, (page, action) in enumerate(steps):
        content = bytes([number % 251 + 1]) * PAGE
        if action == "w":
            ram.write(page * PAGE, content)
            model[page] = content
            written.add(page)
        elif action == "c":
            ram.clean(numbers(*written))
            written.clear()
        elif action == "s":
            model[page] = content
            some = sorted(written | {page})
            ram.set_clean(numbers(*some), [model[n] for n in some], numbers(*written))
            written.clear()
        else:
            assert ram.page(page) == model.get(page, bytes(PAGE))
        assert set(dirty(ram)) == written
    if isinstance(ram._tracker, PrivateCopies):
        assert ram._tracker.read_pagemap().tolist() == sorted(written)
    assert all(ram.page(n) == model.get(n, bytes(PAGE)) for n in range(256))


def test_more_ranges_than_one_scan_returns(way: Way) -> None:
    ram = Ram(20_000 * PAGE, [way])
    ram.add_region(0, 20_000 * PAGE)
    pages = list(range(0, 20_000, 2))
    for n in pages:
        ram.write(n * PAGE, b"x")
    assert dirty(ram) == pages
    if isinstance(ram._tracker, PrivateCopies):
        assert ram._tracker.read_pagemap().tolist() == pages
    ram.clean(ram.dirty())
    assert dirty(ram) == []
    for n in pages[::200]:
        ram.write(n * PAGE, b"y")
    assert dirty(ram) == pages[::200]
    assert ram.contents(numbers(*pages)) == [(b"y" if n % 400 == 0 else b"x") + bytes(PAGE - 1) for n in pages]


def _resident() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))


def test_four_gigabytes_cost_what_is_used(way: Way) -> None:
    before = _resident()
    ram = Ram(4 << 30, [way])
    ram.add_region(0x8000_0000, 4 << 30)
    ram.write(0x8000_0000 + (4 << 30) - 4, b"last")
    assert dirty(ram) == [(4 << 30) // PAGE - 1]
    assert len(ram.populated()) <= 2
    assert _resident() - before < 64 << 20
    ram.close()


def test_regions_with_holes(way: Way) -> None:
    ram = Ram(8 * PAGE, [way])
    ram.add_region(0, 2 * PAGE)
    ram.add_region(4 * PAGE, 6 * PAGE)
    with pytest.raises(ValueError, match="does not fit"):
        ram.add_region(32 * PAGE, PAGE)
    assert ram.write(4 * PAGE, b"z") == [2]
    assert ram.read(2 * PAGE - 2, 100) == bytes(2)
    for address in (2 * PAGE, 3 * PAGE, 10 * PAGE, 1 << 64, -1):
        with pytest.raises(MemoryFault):
            ram.read(address, 1)
    with pytest.raises(MemoryFault):
        ram.write(2 * PAGE - 1, b"ab")
    assert ram.read(2 * PAGE - 1, 1) == b"\0", "all or nothing"


@pytest.mark.parametrize("size", [0, -PAGE, 1, PAGE + 1])
def test_sizes_are_whole_pages(size: int) -> None:
    with pytest.raises(ValueError, match="positive multiple"):
        Ram(size)


def test_contents(way: Way) -> None:
    ram = Ram(64 * PAGE, [way])
    ram.add_region(0, 64 * PAGE)
    ram.write(5 * PAGE, b"five")
    ram.write(9 * PAGE + 4095, b"nine")
    found = ram.contents(numbers(4, 5, 9, 10))
    assert found == [ram.page(n) for n in (4, 5, 9, 10)]
    assert found[0] is ZERO_PAGE
    assert ram.contents(numbers()) == []


@pytest.mark.parametrize("wrong", [[-1], [64], [1 << 60], [3, 3], [4, 3]])
def test_page_numbers_that_are_none(way: Way, wrong: list[int]) -> None:
    """Nothing outside of RAM is read or written, whatever the caller's mistake."""
    ram = Ram(64 * PAGE, [way])
    pages = np.array(wrong, dtype=np.int64)
    with pytest.raises(ValueError, match="page numbers"):
        ram.contents(pages)
    if way is PrivateCopies:
        with pytest.raises(ValueError, match="page numbers"):
            ram.clean(pages)
    with pytest.raises(ValueError, match="page numbers"):
        ram.set_clean(pages, [ZERO_PAGE] * len(pages), numbers())


@pytest.mark.parametrize("contents", [[], [b""], [b"x" * 4095], [ZERO_PAGE, ZERO_PAGE]])
def test_contents_that_do_not_fit(way: Way, contents: list[bytes]) -> None:
    ram = Ram(64 * PAGE, [way])
    with pytest.raises(ValueError, match="content"):
        ram.set_clean(numbers(3), contents, numbers())


HELPER_WRITES = {
    "store": ("riscv64", f"li a0, {DATA + PAGE}\nsb a0, 0(a0)\nnop"),
    "dc zva": ("aarch64", f"movz x0, #{DATA + PAGE >> 16}, lsl #16\nmovk x0, #{DATA + PAGE & 0xFFFF}\ndc zva, x0\nnop"),
    "fxsave": ("i386", f"mov eax, {DATA + PAGE}\nfxsave [eax]\nnop"),
    "rep stosb": ("x86_64", f"mov ecx, 1\nmov edi, {DATA + PAGE}\nrep stosb\nnop"),
    "lock add": ("i386", f"mov eax, {DATA + PAGE}\nlock add dword ptr [eax], 1\nnop"),
    "amo": ("riscv32", f"li a0, {DATA + PAGE}\namoswap.w a1, a0, (a0)\nnop"),
}


@pytest.mark.parametrize("what", HELPER_WRITES)
def test_every_guest_write_makes_its_page_dirty_again(what: str, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "track", lambda size, _: track(size, [way]))
    family, source = HELPER_WRITES[what]
    b = Bench.with_code(family, source)
    fresh = b.engine.save()
    page = (DATA + PAGE - DATA) // PAGE + 4  # behind the four pages of code
    for _ in range(3):  # the engine's own TLB must not remember the old copy
        b.engine.ram.clean(b.engine.ram.dirty())
        b.engine.load(fresh)
        b.run(6 if what == "rep stosb" else 3)
        assert dirty(b.engine.ram) == [page]


def test_what_a_debugger_writes_into_code_runs() -> None:
    b = Bench.with_code("i386", "1: inc eax\njmp 1b")
    b.run(10)
    assert b.engine.read("eax") == 5
    b.engine.write_memory(CODE, b"\x48")  # dec eax
    b.run(20)
    assert b.engine.read("eax") == 0
    assert 0 in dirty(b.engine.ram)
    with pytest.raises(MemoryFault):
        b.engine.write_memory(CODE + 4 * PAGE - 1, b"ab")
    with pytest.raises(MemoryFault):
        b.engine.read_memory(1 << 64, 4)


def test_a_page_of_zeros_that_was_put_back_and_one_that_was_only_read_are_clean(way: Way) -> None:
    ram = Ram(8 * PAGE, [way])
    ram.add_region(0, 8 * PAGE)
    assert ram.page(3) == ZERO_PAGE
    ram.write(PAGE, b"x")
    ram.set_clean(numbers(1, 2), [ZERO_PAGE, b"y" * PAGE], numbers(1))
    assert dirty(ram) == []
    ram.write(PAGE, bytes(1))
    ram.write(3 * PAGE, bytes(1))
    assert dirty(ram) == [1, 3], "written with what was there"


class Silent(PrivateCopies):
    """A page map that tells nothing."""

    def dirty(self) -> PageNumbers:
        return numbers()


def _missing(_size: int) -> Tracker:
    raise OSError(errno.ENOSYS, "not in this kernel")


def test_a_way_that_is_missing_or_does_not_tell_the_truth_is_passed_over() -> None:
    assert type(track(PAGE, [_missing, Silent, PrivateCopies])) is PrivateCopies
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="does not report written pages here"):
        track(PAGE, [Silent, _missing])
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_limit_on_file_sizes_is_told(way: Way) -> None:
    code = (
        "import resource, signal; from rrgdb.engine import memory, tracking\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "memory.Ram(1 << 20, [tracking.%s])\n"
        "try: memory.Ram(2 << 20, [tracking.%s])\n"
        "except OSError as e: print(e)\n"
    )
    name = getattr(way, "__name__", "")
    found = subprocess.run([sys.executable, "-c", code % (name, name)], capture_output=True, text=True, check=True)
    assert "RAM of 2097152 bytes" in found.stdout
    assert "ulimit -f" in found.stdout


def test_ram_that_nobody_closed_leaves_no_open_files_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        Ram(8 * PAGE)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_engines_that_nobody_keeps_leave_no_open_files_behind() -> None:
    for _ in range(3):
        Bench.with_code("riscv64", "nop")
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        Bench.with_code("riscv64", "nop")
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_what_was_closed_takes_no_memory(way: Way) -> None:
    ram = Ram(64 << 20, [way])
    ram.add_region(0, 64 << 20)
    ram.set_clean(np.arange(8192), [b"x" * PAGE] * 8192, numbers())
    for n in range(8192, 16384):
        ram.write(n * PAGE, b"y")
    before = _resident()
    ram.close()
    assert before - _resident() > 60 << 20
