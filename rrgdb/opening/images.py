"""A board's guest: as the user asked for it, and as a recording has it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from rrgdb.arch import ARCHES
from rrgdb.arch.base import Arch
from rrgdb.board.boards import BOARDS, board_of
from rrgdb.board.firmware.boot import File, arch_of, boot, seed_sizes
from rrgdb.board.firmware.image import MAX_FILE, Image, ImageError, Placed, load_image, load_raw, place_image
from rrgdb.board.spec import BoardSpec, Clock, RamLayout
from rrgdb.opening.boards import board_for
from rrgdb.opening.booting import KERNEL, add_firmware, description, images_of
from rrgdb.opening.guests import BoardPlan
from rrgdb.opening.options import BootFiles, GuestOptions, OptionError
from rrgdb.opening.settings import MAX_TEXT, Settings, parse
from rrgdb.recording.directory import NewImage, Recording
from rrgdb.recording.files import read_image


@dataclass(frozen=True, slots=True)
class Asked:
    """A guest as the user asked for it: its images and settings are what a recording keeps. ``name``: of the file that
    it is called after; ``memory``: bytes of RAM, with the board's holes."""

    name: str
    memory: int
    plan: BoardPlan
    images: tuple[NewImage, ...]
    settings: Settings


def asked_for(path: Path | None, options: GuestOptions, disks: int) -> Asked:
    """The guest of an image, or of ``options.boot``, with so many disks. Raises OSError, OptionError, ImageError."""
    _check_texts(options)
    if options.boot is not None:
        return _booted(options.boot, options, disks)
    if path is None:
        raise OptionError("expected an image, or something to boot from")
    if not path.name.isprintable():
        raise OptionError(f"IMAGE {path.name!a}: expected a name of printable characters")
    data = read_image(path, MAX_FILE)
    image, spec = _image(data, str(path), options)
    (memory, ram), cpu = _ram(options, spec), _model(options, image.arch)
    settings = _settings(options, spec, Settings(args=options.args, entry=options.entry))
    plan = _plan(place_image(image, spec, ram, options.args), spec, cpu, settings)
    return Asked(path.name, memory, plan, (NewImage(path.name, KERNEL, data, options.load),), settings)


def _booted(files: BootFiles, options: GuestOptions, disks: int) -> Asked:
    images, start = images_of(files)
    families = (arch_of(File(shown, image.data)) for image, shown in images.all)
    spec = board_for(options.board, options.cpu, next((family for family in families if family is not None), None))
    add_firmware(images, files, spec)
    memory, ram = _ram(options, spec)
    if disks > spec.disks:
        raise OptionError(f"-device: board {spec.name} has room for {spec.disks} disks")
    cpu = _model(options, ARCHES[spec.arches[0]])
    settings = _settings(options, spec, Settings(append=files.append, start=start))
    try:
        placed = boot(description(images.all, settings), spec, ram, cpu, disks)
    except ValueError as e:
        raise OptionError(f"-device loader: expected {e}") from None
    kept = tuple(image for image, _ in images.all)
    return Asked(kept[0].name if kept else spec.name, memory, _plan(placed, spec, cpu, settings), kept, settings)


def _image(data: bytes, name: str, options: GuestOptions) -> tuple[Image, BoardSpec]:
    if options.load is None:
        if options.entry is not None:
            raise OptionError("--entry: expected together with --load (an ELF file names its own entry)")
        image = load_image(data, name)
        return image, board_for(options.board, options.cpu, image.arch.name)
    if options.board is None:
        raise OptionError("--load: a raw image needs -M BOARD")
    spec = board_for(options.board, options.cpu, None)
    arch, load, entry = ARCHES[spec.arches[0]], options.load, options.entry
    if load >= 1 << arch.bits:
        raise OptionError(f"--load {load:#x}: expected an address of {arch.bits} bits")
    if entry is not None and not load <= entry < load + len(data):
        raise OptionError(f"--entry {entry:#x}: expected an address in the image, {load:#x}-{load + len(data) - 1:#x}")
    return load_raw(data, name, arch, load, entry), spec


def _ram(options: GuestOptions, spec: BoardSpec) -> tuple[int, RamLayout]:
    memory = options.memory if options.memory is not None else spec.default_ram
    try:
        return memory, spec.ram(memory)
    except ValueError as e:
        raise OptionError(f"-m: {e}") from None


def _model(options: GuestOptions, arch: Arch) -> str:
    cpu = options.cpu or arch.models[0]
    if cpu not in arch.models:
        raise OptionError(f"--cpu {cpu[:60]}: {arch.name} has {', '.join(arch.models)}")
    return cpu


def _check_texts(options: GuestOptions) -> None:
    append = "" if options.boot is None else options.boot.append
    for name, text in (("ARGS", options.args), ("-append", append)):
        if not text.isprintable() or len(text) > MAX_TEXT:
            raise OptionError(f"{name} {ascii(text)[:60]}: expected at most {MAX_TEXT} printable characters")


def _settings(options: GuestOptions, spec: BoardSpec, own: Settings) -> Settings:
    """``own`` and what does not depend on how the guest starts; with seeds for the device tree, drawn from the host,
    if they are asked for."""
    if options.randomness and own.append is None:
        raise OptionError("-M dtb-randomness=on: expected with -kernel or -bios: an IMAGE gets no device tree")
    sizes = seed_sizes(spec) if options.randomness else {}
    seeds = {name: os.urandom(size).hex() for name, size in sizes.items()}
    settings = replace(
        own,
        kaslr_seed=seeds.get("kaslr-seed"),
        rng_seed=seeds.get("rng-seed"),
        shift=options.shift,
        sleep=options.sleep,
        no_reboot=options.no_reboot,
        virtio=None if options.virtio is None else " ".join(options.virtio),
        legacy=options.legacy,
    )
    missing = _missing(settings, spec)
    if missing is not None:
        raise OptionError(f"-device: expected {missing[1]}")
    return settings


def _missing(settings: Settings, spec: BoardSpec) -> tuple[str, str] | None:
    """The setting that the board has not, and what is expected in its place."""
    interrupting = any(place.slots and place.line is not None for place in spec.placements)
    if settings.legacy and not interrupting:
        return "legacy", f"slots of version 2 on revision {spec.revision} of board {spec.name}"
    if set(settings.slots or ()) - {"disk"} and not interrupting:
        return "virtio", f"disks alone on revision {spec.revision} of board {spec.name}"
    if len(settings.slots or ()) > spec.disks:
        return "virtio", f"at most {spec.disks} virtio devices on board {spec.name}"
    return None


def _plan(placed: Placed, spec: BoardSpec, cpu: str, settings: Settings) -> BoardPlan:
    clock = Clock(settings.shift, settings.sleep)
    return BoardPlan(placed, spec, cpu, clock, not settings.no_reboot, settings.slots, settings.legacy)


def plan_recorded(recording: Recording) -> BoardPlan:
    """The board's guest that a manifest names. Raises ManifestError, RecordingError."""
    guest, misfit = recording.manifest.guest, recording.misfit
    if guest.board not in BOARDS:
        raise misfit("guest.board", f"one of {', '.join(BOARDS)}", guest.board)
    spec = board_of(guest.board, guest.revision)
    if spec is None:
        raise misfit("guest.revision", f"one of {guest.board} that this rrgdb has", guest.revision)
    try:
        ram = spec.ram(guest.ram_bytes)
    except ValueError as e:
        raise misfit("guest.ram_bytes", f"what a board can have ({e})", guest.ram_bytes) from None
    settings = parse(guest.options, misfit)
    missing = _missing(settings, spec)
    if missing is not None:
        raise misfit(f"guest.options.{missing[0]}", missing[1], guest.options[missing[0]])
    placed = (
        _recorded_image(recording, spec, ram, settings)
        if settings.append is None
        else _recorded_boot(recording, spec, ram, settings)
    )
    if guest.cpu not in placed.arch.models:
        raise misfit("guest.cpu", f"one of {', '.join(placed.arch.models)}", guest.cpu)
    if len(guest.disks) > spec.disks:
        raise misfit("guest.disks", f"at most {spec.disks} on board {spec.name}", len(guest.disks))
    if settings.slots is not None and settings.slots.count("disk") != len(guest.disks):
        raise misfit("guest.options.virtio", f"{len(guest.disks)} disks", settings.virtio)
    return _plan(placed, spec, guest.cpu, settings)


def _recorded_image(recording: Recording, spec: BoardSpec, ram: RamLayout, settings: Settings) -> Placed:
    guest, misfit = recording.manifest.guest, recording.misfit
    if not guest.images:
        raise misfit("guest.images", "the image of a board's guest", [])
    kernel, entry = guest.images[0], settings.entry
    if entry is not None and kernel.load_address is None:
        raise misfit("guest.options.entry", "an address, of a raw image alone", entry)
    data, name = recording.image(kernel.name), str(recording.image_path(kernel.name))
    try:
        if kernel.load_address is None:
            image = load_image(data, name)
        else:
            image = load_raw(data, name, ARCHES[spec.arches[0]], kernel.load_address, entry)
        return place_image(image, spec, ram, settings.args)
    except ImageError as e:
        # The image is the one that was recorded: what is said of it does not fit.
        raise misfit("guest.images[0]", f"an image for board {spec.name} ({e})", kernel.name) from None


def _recorded_boot(recording: Recording, spec: BoardSpec, ram: RamLayout, settings: Settings) -> Placed:
    guest, misfit = recording.manifest.guest, recording.misfit
    names = [image.name for image in guest.images]
    images = [
        (NewImage(i.name, i.role, recording.image(i.name), i.load_address), str(recording.image_path(i.name)))
        for i in guest.images
    ]
    sizes = seed_sizes(spec)
    for name, seed in settings.seeds.items():
        if sizes.get(name) != len(seed):
            raise misfit(f"guest.options.{name.replace('-', '_')}", f"what a tree of {spec.name} has", seed.hex())
    if guest.cpu not in ARCHES[spec.arches[0]].models:
        raise misfit("guest.cpu", f"one of {', '.join(ARCHES[spec.arches[0]].models)}", guest.cpu)
    try:
        return boot(description(images, settings), spec, ram, guest.cpu, len(guest.disks))
    except ImageError as e:
        raise misfit("guest.images", f"images for board {spec.name} ({e})", names) from None
    except ValueError as e:
        raise misfit("guest.images", str(e), names) from None
