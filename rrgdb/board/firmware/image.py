"""Guest images: ELF files, Multiboot images and raw bytes, checked before anything touches RAM.

Every rejection is an ``ImageError`` of one line: file, offset in the file, what is wrong, what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from rrgdb.arch import ARCHES, by_elf
from rrgdb.arch.base import Arch
from rrgdb.board.firmware import elf, multiboot
from rrgdb.board.firmware.arm_attributes import is_m_profile
from rrgdb.board.firmware.configuration import configuration
from rrgdb.board.firmware.elf import Header, ProgramHeader
from rrgdb.board.firmware.multiboot import ImageError
from rrgdb.board.spec import BoardSpec, RamLayout

MAX_FILE = 1 << 30
MAX_SEGMENT_BYTES = 4 << 30
MAX_HEADERS = 1 << 20
"""bytes of a segment that are looked at for being headers alone"""
STACK_BYTES = 1 << 16
"""of the stack, as far as anybody asks for its bounds"""

__all__ = ["Image", "ImageError", "Placed", "Segment", "is_elf", "load_elf", "load_image", "load_raw", "place_image"]


@dataclass(frozen=True, slots=True)
class Segment:
    """``data`` goes to physical address ``paddr``, zeros behind it up to ``memsz`` bytes; ``offset`` is in the file."""

    paddr: int
    vaddr: int
    data: bytes
    memsz: int
    offset: int = 0

    @property
    def end(self) -> int:
        """Physical address behind the last byte."""
        return self.paddr + self.memsz


@dataclass(frozen=True)
class Image:
    """What to put into RAM and where to start. ``entry`` is a physical address (ARM: with bit 0 set for Thumb)."""

    name: str
    arch: Arch
    entry: int
    segments: tuple[Segment, ...]
    registers: Mapping[str, int] = field(default_factory=dict)
    """GDB register name -> value to write after ``Arch.reset``"""
    multiboot: bool = False
    headers: tuple[tuple[int, int], ...] = ()
    """(start, end) in the file of what describes an ELF file to its readers: its headers, and its notes"""
    left_out: str = ""
    """what of the file is not loaded, in one line"""


@dataclass(frozen=True)
class Placed:
    """An image as it starts on a board: what is put into RAM and registers there, all of it checked. Addresses are
    physical; ``stack`` and ``heap`` are (lowest, highest)."""

    arch: Arch
    entry: int
    segments: tuple[Segment, ...]
    registers: Mapping[str, int]
    """GDB register name -> value to write after ``Arch.reset``"""
    ram: RamLayout
    stack: tuple[int, int]
    heap: tuple[int, int]
    args: str
    left_out: str
    """what of the file is not loaded, in one line"""
    configuration: Mapping[int, bytes] = field(default_factory=dict)
    """the items of fw_cfg by their keys"""


def is_elf(data: bytes) -> bool:
    return data[:4] == b"\x7fELF"


def load_image(data: bytes, name: str) -> Image:
    """An ELF executable, or a Multiboot image that is no ELF file; ``name`` is for messages. Raises ``ImageError``."""
    if len(data) > MAX_FILE:
        raise ImageError(name, MAX_FILE, f"file of {len(data)} bytes", f"at most {MAX_FILE}")
    if is_elf(data):
        return _load_elf(data, name)
    header = multiboot.find_header(data, name)
    if header is None or header.addresses is None:
        raise ImageError(name, 0, f"starts with {data[:4].hex() or 'nothing'}", "an ELF file (7f454c46)")
    return _load_multiboot(data, name, header.offset, header.addresses)


def load_elf(data: bytes, name: str) -> Image:
    """An ELF file of any type, as a boot loader takes it: what its segments hold, where they say; the entry may be
    anywhere. Raises ``ImageError``."""
    return _elf_image(data, name, *_elf_header(data, name), any_type=True)


def load_raw(data: bytes, name: str, arch: Arch, load: int, entry: int | None = None) -> Image:
    """Raw bytes at physical address ``load``, started at ``entry`` (``load`` if None). Raises ``ImageError``."""
    if not data or len(data) > MAX_FILE:
        raise ImageError(name, 0, f"raw image of {len(data)} bytes", f"1 to {MAX_FILE}")
    if not 0 <= load < 1 << arch.bits:
        raise ImageError(name, 0, f"load address {load:#x}", f"an address of {arch.bits} bits")
    return _checked(Image(name, arch, load if entry is None else entry, (Segment(load, load, data, len(data)),)))


def place_image(image: Image, board: BoardSpec, ram: RamLayout, args: str = "") -> Placed:
    """The image as it starts on ``board`` with that RAM: all checks passed, and for Multiboot with its information
    block (which carries ``args``) as a further segment. Raises ``ImageError``."""
    image = as_of(image, board)
    if image.arch.name not in board.arches:
        expected = f"{' or '.join(board.arches)} for board {board.name}"
        raise ImageError(image.name, 0x12, f"image for {image.arch.name}", expected)
    regions = ram.regions
    image = _checked(without_headers(image, regions))
    for segment in image.segments:
        check_memory(segment, image.name, board, regions)
    if image.multiboot and board.multiboot:
        taken = [(segment.paddr, segment.end) for segment in image.segments]
        address, block = multiboot.info_block(image.name, regions, taken, args)
        segment = Segment(address, address, block, len(block))
        registers = {"eax": multiboot.BOOT_MAGIC, "ebx": address}
        image = replace(image, segments=(*image.segments, segment), registers={**image.registers, **registers})
    return Placed(
        image.arch,
        image.entry,
        image.segments,
        image.registers,
        ram,
        *stack_and_heap(ram, image.segments),
        args,
        image.left_out,
        configuration(board),
    )


def check_memory(segment: Segment, name: str, board: BoardSpec, regions: Sequence[tuple[int, int]]) -> None:
    """``ImageError`` unless the segment lies within one of ``regions``, (base, bytes) each, and clear of devices."""
    device = board.device_at(segment.paddr, segment.memsz)
    if device is not None:
        what = f"segment {segment.paddr:#x}-{segment.end - 1:#x} lies across device {device.name} at {device.base:#x}"
        raise ImageError(name, segment.offset, what, f"RAM ({ranges(regions)})")
    if not any(base <= segment.paddr and segment.end <= base + size for base, size in regions):
        what = f"segment {segment.paddr:#x}-{segment.end - 1:#x} lies outside RAM"
        raise ImageError(name, segment.offset, what, ranges(regions))


def stack_and_heap(ram: RamLayout, segments: Sequence[Segment]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(lowest, highest) address of either, in the last region of RAM: the heap begins above what lies there."""
    last = ram.regions[-1][0]
    stack = (ram.stack_top - STACK_BYTES, ram.stack_top)
    heap = max((s.end for s in segments if s.end > last), default=last) + 15 & -16
    return stack, (heap, stack[0])


def as_of(image: Image, board: BoardSpec) -> Image:
    """The image for the CPU of the board, where its file would do for that as well: Arm's files need not tell the
    profile."""

    def kind(arch: Arch) -> tuple[str, int, str]:
        return arch.elf_machine, arch.bits, arch.byteorder

    if image.arch.name in board.arches:
        return image
    arches = (ARCHES[name] for name in board.arches)
    arch = next((arch for arch in arches if kind(arch) == kind(image.arch)), None)
    return image if arch is None else replace(image, arch=arch)


def without_headers(image: Image, regions: Sequence[tuple[int, int]]) -> Image:
    """Without what lies below RAM, as far as that is the file's headers: a linker puts them into the first segment, a
    page below the code, unless it is told not to. QEMU drops whatever lies outside RAM."""
    kept, dropped = [], []
    for segment in image.segments:
        outside = not any(base <= segment.paddr < base + size for base, size in regions)
        above = min((base for base, _ in regions if base > segment.paddr), default=segment.end)
        cut = min(above - segment.paddr, segment.memsz)
        if not outside or not _only_headers(segment, cut, image.headers):
            kept.append(segment)
            continue
        dropped.append((segment.paddr, cut))
        if cut < segment.memsz:
            kept.append(
                Segment(above, segment.vaddr + cut, segment.data[cut:], segment.memsz - cut, segment.offset + cut)
            )
    if not dropped:
        return image
    what = f"{image.name}: its headers at {ranges(dropped)} lie outside RAM and are left out"
    if not kept:
        raise ImageError(image.name, 0, f"nothing but headers, at {ranges(dropped)}", "a segment to load")
    return replace(image, segments=tuple(kept), left_out=what)


def _only_headers(segment: Segment, length: int, headers: Sequence[tuple[int, int]]) -> bool:
    """Whether the first bytes of a segment are headers, and nothing besides but zeros between them."""
    if not 0 < length <= min(len(segment.data), MAX_HEADERS):
        return False
    rest, found = bytearray(segment.data[:length]), False
    for start, end in headers:
        low, high = (min(max(at - segment.offset, 0), length) for at in (start, end))
        rest[low:high] = bytes(high - low)
        found = found or low < high
    return found and not any(rest)


def ranges(regions: Sequence[tuple[int, int]]) -> str:
    return " or ".join(f"{base:#x}-{base + size - 1:#x}" for base, size in regions)


def _load_elf(data: bytes, name: str) -> Image:
    arch, header = _elf_header(data, name)
    _check_type(header.type, name)
    boot = multiboot.find_header(data, name) if arch.name == "i386" else None
    if boot is not None and boot.addresses is not None:
        return _load_multiboot(data, name, boot.offset, boot.addresses)
    image = _elf_image(data, name, arch, header, any_type=False)
    return _checked(replace(image, multiboot=boot is not None))


def _elf_image(data: bytes, name: str, arch: Arch, header: Header, *, any_type: bool) -> Image:
    headers = elf.read_program_headers(data, name, header)
    if not any_type:
        _check_static(headers, name, header)
    loadable = [h for h in headers if h.type == elf.PT_LOAD and h.memsz > 0]
    if not loadable:
        raise ImageError(name, header.phoff, "no segment to load", "at least one PT_LOAD")
    # Bounds the memory that the copies below take to the size of the file.
    if sum(h.filesz for h in loadable) > len(data):
        what = f"segments of more bytes than the file's {len(data)} (cut off?)"
        raise ImageError(name, header.phoff, what, "each byte of the file in one segment at most")
    segments = [_segment(data, name, h, arch) for h in loadable]
    entry = _physical_entry(header.entry, [s for s, h in zip(segments, loadable, strict=True) if h.flags & 1])
    return Image(name, arch, entry, _without_runtime_tails(segments), headers=_header_ranges(header, headers))


def _elf_header(data: bytes, name: str) -> tuple[Arch, Header]:
    header = elf.read_header(data, name)
    try:
        arch = by_elf(elf.machine_name(header.machine), header.bits, header.byteorder)
    except ValueError as error:
        raise ImageError(name, 0x12, str(error), "a machine of a board") from error
    if arch.name == "arm" and is_m_profile(data):
        arch = ARCHES["armv7m"]
    return arch, header


def _header_ranges(header: Header, headers: Sequence[ProgramHeader]) -> tuple[tuple[int, int], ...]:
    table = header.phoff
    notes = [(h.offset, h.offset + h.filesz) for h in headers if h.type == elf.PT_NOTE]
    return ((0, header.ehsize), (table, table + len(headers) * header.phentsize), *notes)


def _without_runtime_tails(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Without zeros that would lie on another segment: such a segment is stored elsewhere than it runs (``AT>`` of
    linker scripts), the program copies it, and its size in memory counts there only. QEMU takes it so."""

    def stored(segment: Segment) -> Segment:
        zeros = segment.paddr + len(segment.data)
        if any(other is not segment and other.paddr < segment.end and zeros < other.end for other in segments):
            return replace(segment, memsz=len(segment.data))
        return segment

    return tuple(segment for segment in map(stored, segments) if segment.memsz)


def _check_type(type_: int, name: str) -> None:
    if type_ == elf.ET_EXEC:
        return
    found = elf.type_name(type_)
    what = {
        "ET_REL": "relocatable object file (ET_REL)",
        "ET_DYN": "position-independent or shared file (ET_DYN); Linux programs are not supported yet",
        "ET_CORE": "core dump (ET_CORE)",
    }.get(found, f"ELF type {found}")
    raise ImageError(name, 0x10, what, "an executable linked to fixed addresses (ET_EXEC)")


def _check_static(headers: Sequence[ProgramHeader], name: str, header: Header) -> None:
    for index, program_header in enumerate(headers):
        if program_header.type == elf.PT_INTERP:
            what = "dynamically linked Linux program (PT_INTERP); Linux programs are not supported yet"
            offset = header.phoff + index * header.phentsize
            raise ImageError(name, offset, what, "a static executable for a board")


def _segment(data: bytes, name: str, header: ProgramHeader, arch: Arch) -> Segment:
    offset, filesz, memsz, paddr, vaddr = header.offset, header.filesz, header.memsz, header.paddr, header.vaddr
    if filesz > memsz:
        raise ImageError(name, offset, f"segment {paddr:#x} has p_filesz {filesz:#x}", f"at most p_memsz {memsz:#x}")
    if memsz > MAX_SEGMENT_BYTES:
        raise ImageError(name, offset, f"segment {paddr:#x} has p_memsz {memsz:#x}", f"at most {MAX_SEGMENT_BYTES:#x}")
    if filesz and offset + filesz > len(data):
        raise ImageError(name, offset, f"segment {paddr:#x} is cut off", f"{filesz} bytes, file has {len(data)}")
    if max(paddr, vaddr) + memsz > 1 << arch.bits:
        raise ImageError(name, offset, f"segment {paddr:#x} ends beyond the address space", f"{arch.bits} address bits")
    return Segment(paddr, vaddr, data[offset : offset + filesz], memsz, offset)


def _physical_entry(entry: int, code: Sequence[Segment]) -> int:
    """Where the segment of code whose bytes hold the virtual address ``entry`` puts it: for QEMU's ``-kernel`` that is
    the last one whose addresses differ."""
    for segment in reversed(code):
        if segment.vaddr != segment.paddr and segment.vaddr <= entry < segment.vaddr + len(segment.data):
            return entry - segment.vaddr + segment.paddr
    return entry


def _load_multiboot(data: bytes, name: str, offset: int, addresses: multiboot.Addresses) -> Image:
    paddr, start, length, memsz = multiboot.extent(addresses, offset, len(data), name)
    segment = Segment(paddr, paddr, data[start : start + length], memsz, start)
    return _checked(Image(name, by_elf("EM_386", 32, "little"), addresses.entry, (segment,), multiboot=True))


def _checked(image: Image) -> Image:
    """Segments are disjoint, and the entry is in one of them, aligned."""
    ordered = sorted(image.segments, key=lambda s: s.paddr)
    for below, above in pairwise(ordered):
        if above.paddr < below.end:
            what = f"segments {below.paddr:#x}-{below.end - 1:#x} and {above.paddr:#x}-{above.end - 1:#x} overlap"
            raise ImageError(image.name, above.offset, what, "disjoint physical addresses")
    thumb = image.arch.second_set is not None and image.entry & 1
    if not any(s.paddr <= image.entry < s.end for s in ordered):
        expected = " or ".join(f"{s.paddr:#x}-{s.end - 1:#x}" for s in ordered[:4])
        raise ImageError(image.name, 0x18, f"entry {image.entry:#x} is in no segment", expected)
    alignment = image.arch.max_instruction_length if image.arch.second_set else image.arch.instruction_alignment
    if image.entry % alignment and not thumb:
        expected = f"a multiple of {alignment}" + (", or odd for Thumb" if image.arch.second_set else "")
        raise ImageError(image.name, 0x18, f"entry {image.entry:#x} is misaligned", expected)
    return image
