"""The image of a board's guest: as the user asked for it, and as a recording has it."""

from __future__ import annotations

from rrgdb.arch import ARCHES
from rrgdb.board.boards import BOARDS, board_of, default_board
from rrgdb.board.firmware.image import Image, ImageError, load_image, load_raw, place_image
from rrgdb.board.spec import BoardSpec
from rrgdb.opening.guests import BoardPlan
from rrgdb.opening.options import GuestOptions, OptionError
from rrgdb.recording.directory import Recording


def image_asked_for(data: bytes, name: str, options: GuestOptions) -> tuple[Image, BoardSpec]:
    """Raises OptionError, ImageError."""
    spec = None if options.board is None else BOARDS.get(options.board)
    if options.board is not None and spec is None:
        raise OptionError(f"-M {options.board}: expected one of {', '.join(BOARDS)}")
    if options.load is None:
        if options.entry is not None:
            raise OptionError("--entry: expected together with --load (an ELF file names its own entry)")
        image = load_image(data, name)
        return image, spec or default_board(image.arch.name)
    if spec is None:
        raise OptionError("--load: a raw image needs -M BOARD")
    arch, load, entry = ARCHES[spec.arches[0]], options.load, options.entry
    if load >= 1 << arch.bits:
        raise OptionError(f"--load {load:#x}: expected an address of {arch.bits} bits")
    if entry is not None and not load <= entry < load + len(data):
        raise OptionError(f"--entry {entry:#x}: expected an address in the image, {load:#x}-{load + len(data) - 1:#x}")
    return load_raw(data, name, arch, load, entry), spec


def plan_recorded(recording: Recording) -> BoardPlan:
    """The board's guest that a manifest names. Raises ManifestError, RecordingError."""
    guest, misfit = recording.manifest.guest, recording.misfit
    if not guest.images:
        raise misfit("guest.images", "the image of a board's guest", [])
    if guest.board not in BOARDS:
        raise misfit("guest.board", f"one of {', '.join(BOARDS)}", guest.board)
    spec = board_of(guest.board, guest.revision)
    if spec is None:
        raise misfit("guest.revision", f"one of {guest.board} that this rrgdb has", guest.revision)
    try:
        ram = spec.ram(guest.ram_bytes)
    except ValueError as e:
        raise misfit("guest.ram_bytes", f"what a board can have ({e})", guest.ram_bytes) from None
    kernel = guest.images[0]
    entry, args = guest.options.get("entry"), guest.options.get("args", "")
    if not isinstance(args, str):
        raise misfit("guest.options.args", "text", args)
    if entry is not None and (type(entry) is not int or entry < 0 or kernel.load_address is None):
        raise misfit("guest.options.entry", "an address, of a raw image alone", entry)
    data, name = recording.image(kernel.name), str(recording.image_path(kernel.name))
    try:
        if kernel.load_address is None:
            image = load_image(data, name)
        else:
            image = load_raw(data, name, ARCHES[spec.arches[0]], kernel.load_address, entry)
        plan = BoardPlan(place_image(image, spec, ram, args), spec, guest.cpu)
    except ImageError as e:
        # The image is the one that was recorded: what is said of it does not fit.
        raise misfit("guest.images[0]", f"an image for board {spec.name} ({e})", kernel.name) from None
    if guest.cpu not in image.arch.models:
        raise misfit("guest.cpu", f"one of {', '.join(image.arch.models)}", guest.cpu)
    if len(guest.disks) > spec.disks:
        raise misfit("guest.disks", f"at most {spec.disks} on board {spec.name}", len(guest.disks))
    return plan
