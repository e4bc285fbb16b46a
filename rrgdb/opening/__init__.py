"""From an image or a recording to a timeline: builds board, door, store and recorder, and takes them down again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from rrgdb.arch import ARCHES
from rrgdb.arch.base import Arch
from rrgdb.board.boards import BOARDS, board_of, default_board
from rrgdb.board.firmware.image import MAX_FILE, Image, ImageError, load_image, load_raw, place_image
from rrgdb.board.machine import Board
from rrgdb.board.spec import BoardSpec
from rrgdb.engine.base import EngineError
from rrgdb.engine.memory import PAGE, Ram
from rrgdb.engine.unicorn.engine import UnicornEngine, build_id
from rrgdb.engine.unicorn.scripted import ScriptEngine, new_uc
from rrgdb.errors import Error, UsageError
from rrgdb.guest import Guest
from rrgdb.recording import behaviour
from rrgdb.recording.directory import NewImage, Recording, RecordingError, default_path, recording_of
from rrgdb.recording.door import Door
from rrgdb.recording.files import read_image
from rrgdb.recording.log import LogError
from rrgdb.recording.manifest import MAX_PATH, Disk, Option
from rrgdb.script.guest import ScriptGuest
from rrgdb.snapshots import naming, overlays
from rrgdb.snapshots.naming import START
from rrgdb.snapshots.overlays import DiskImage
from rrgdb.snapshots.store import SnapshotStore, StoreError
from rrgdb.text import shown
from rrgdb.timeline.disks import Disks
from rrgdb.timeline.marks import MEMORY_BUDGET, Marks, WrongMachineError
from rrgdb.timeline.recorder import Recorder
from rrgdb.timeline.timeline import Timeline
from rrgdb.workers.pool import Workers

INTERVAL = 0.1
BUDGET = 4 << 30
KERNEL = "kernel"
MAX_ARGS = 1 << 16
"""characters of a guest's arguments"""


class OptionError(UsageError):
    """An option does not fit: one line naming it and what was expected."""


@dataclass(frozen=True, slots=True)
class GuestOptions:
    """What the user asked for. Sizes in bytes; ``load``/``entry`` are physical addresses of a raw image."""

    board: str | None = None
    cpu: str | None = None
    memory: int | None = None
    load: int | None = None
    entry: int | None = None
    args: str = ""


class NewDisk(NamedTuple):
    """A disk for a new guest: the user's image. ``name`` None: ``diskN``; ``format`` None: raw."""

    path: Path
    name: str | None = None
    format: str | None = None
    readonly: bool = False


@dataclass(slots=True)
class Opened:
    """A timeline with everything that belongs to it; ``close`` finishes and syncs the recording."""

    timeline: Timeline
    recording: Recording
    guest: Guest
    door: Door
    store: SnapshotStore | None
    ram: Ram
    messages: list[str]
    workers: Workers | None = None
    closed: bool = False

    def use_workers(self, jobs: int) -> None:
        """Long searches are shared by so many worker processes; fewer than 2: by none."""
        if jobs > 1:
            moved = {image.name: str(image.path.resolve()) for image in self.timeline.marks.disks.images}
            self.workers = Workers(self.recording.path, jobs, moved)
            self.workers.say = lambda line: self.timeline.say(f"{line}\n")

    def discard(self) -> bool:
        """Close the recording, and remove it if nothing has happened in it; whether it was removed."""
        unused = self.timeline.live and self.timeline.end == self.timeline.start
        self.close()
        if unused:
            self.recording.remove()
        return unused

    def close(self) -> None:
        """Idempotent. Raises LogError, StoreError or ManifestError if what was recorded last cannot be written, the
        first of them; all is closed then."""
        if self.closed:
            return
        self.closed = True
        failure: BaseException | None = None
        parts = (self.timeline, self.door, self.workers, self.timeline.index, self.store, self.timeline.marks.disks)
        for part in (*parts, self.recording, self.ram):
            try:
                if part is not None:
                    part.close()
            except BaseException as e:  # whatever it is, the rest is closed
                failure = failure or e
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Error as late:
            # What went wrong first is what the user hears of, unless now the log could not be written.
            if not isinstance(error, Error) or (isinstance(late, LogError) and not isinstance(error, LogError)):
                raise


def _image_asked_for(data: bytes, name: str, options: GuestOptions) -> tuple[Image, BoardSpec]:
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


def _image_recorded(recording: Recording) -> tuple[Image, BoardSpec, str]:
    """The image and the board that a manifest names, and the guest's arguments. ManifestError, RecordingError."""
    guest, misfit = recording.manifest.guest, recording.misfit
    if not guest.images:
        raise misfit("guest.images", "the image of a board's guest", [])
    if guest.board not in BOARDS:
        raise misfit("guest.board", f"one of {', '.join(BOARDS)}", guest.board)
    spec = board_of(guest.board, guest.revision)
    if spec is None:
        raise misfit("guest.revision", f"one of {guest.board} that this rrgdb has", guest.revision)
    try:
        spec.check_ram(guest.ram_bytes)
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
        place_image(image, spec, guest.ram_bytes, args)
    except ImageError as e:
        # The image is the one that was recorded: what is said of it does not fit.
        raise misfit("guest.images[0]", f"an image for board {spec.name} ({e})", kernel.name) from None
    if guest.cpu not in image.arch.engine_models:
        raise misfit("guest.cpu", f"one of {', '.join(image.arch.engine_models)}", guest.cpu)
    if len(guest.disks) > spec.disks:
        raise misfit("guest.disks", f"at most {spec.disks} on board {spec.name}", len(guest.disks))
    return image, spec, args


def _new_disks(disks: Sequence[NewDisk], spec: BoardSpec) -> list[DiskImage]:
    """Raises OptionError, StoreError."""
    if len(disks) > spec.disks:
        raise OptionError(f"--disk: board {spec.name} has room for {spec.disks} disks")
    names = [f"disk{i}" if disk.name is None else disk.name for i, disk in enumerate(disks)]
    for name, disk in zip(names, disks, strict=True):
        where = f"--disk {disk.path}"
        if not overlays.NAME.fullmatch(name) or names.count(name) > 1:
            raise OptionError(f"{where}: name {name!r}, expected one of its own, of letters, digits, - and _")
        if disk.format not in (None, *overlays.FORMATS):
            raise OptionError(f"{where}: format {disk.format!r}, expected one of {', '.join(overlays.FORMATS)}")
        if not str(disk.path.resolve()).isprintable() or len(str(disk.path.resolve())) > MAX_PATH:
            raise OptionError(f"{where}: expected a path of at most {MAX_PATH} printable characters")
        if disk.format is None and overlays.looks_like_qcow2(disk.path):
            # What a guest has written to a raw image must not choose how it is read.
            raise OptionError(f"{where}: it begins as a qcow2 image does: expected format=qcow2 or format=raw")
    with ExitStack() as stack:
        images = []
        for name, disk in zip(names, disks, strict=True):
            image = DiskImage(disk.path.resolve(), disk.format or "raw", readonly=disk.readonly, name=name)
            images.append(image)
            stack.callback(image.close)
            owned = _owned_by_a_recording(image)
            if owned is not None:
                raise OptionError(f"--disk {disk.path}: {owned}, expected an image that nobody changes")
        stack.pop_all()
    return images


def _owned_by_a_recording(image: DiskImage) -> str | None:
    """Why an image may change under the guest: the recording that it belongs to goes on, or gets snapshots."""
    for file in image.files():
        owner = recording_of(file)
        if owner is not None:
            return f"{file} belongs to the recording {owner}"
    linked = image.linked_overlay()
    return None if linked is None else f"{linked} is an overlay of a recording under a second name"


def _disks_of(recording: Recording, moved: Mapping[str, Path], *, needed: bool) -> tuple[list[DiskImage], list[str]]:
    """The images of the disks of a recording, and what is to be told of them. Raises OptionError, RecordingError."""
    listed = recording.manifest.guest.disks
    unknown = sorted(moved.keys() - {disk.name for disk in listed})
    if unknown:
        has = ", ".join(disk.name for disk in listed)
        raise OptionError(f"--disk {unknown[0]}: the recording has no disk of that name; it has {has}")
    images: list[DiskImage] = []
    messages = []
    with ExitStack() as stack:
        for disk in listed:
            path = moved.get(disk.name, Path(disk.path))
            try:
                image = _image_of(disk, path)
            except StoreError as e:
                if needed:
                    raise RecordingError(
                        f"disk {disk.name}: {e} (--disk {disk.name}=FILE names another place)"
                    ) from None
                messages.append(f"disk {disk.name}: {e}")
                image = DiskImage.missing(disk.name, path, disk.format, disk.size, readonly=disk.readonly)
            images.append(image)
            stack.callback(image.close)
            owned = _owned_by_a_recording(image)
            if owned is not None:
                messages.append(f"disk {disk.name}: {owned}: if that changes it, replay goes another way")
            if image.mtime_ns not in (None, disk.mtime_ns):
                messages.append(
                    f"disk {disk.name}: {path} was changed since the recording was made: if its content was, replay "
                    "goes another way"
                )
        stack.pop_all()
    return images, messages


def _image_of(disk: Disk, path: Path) -> DiskImage:
    image = DiskImage(path, disk.format, readonly=disk.readonly, name=disk.name)
    if image.size != disk.size:
        image.close()
        raise StoreError(f"{path}: a disk of {image.size} bytes, the recording was made with {disk.size}")
    return image


def _build(
    image: Image,
    spec: BoardSpec,
    memory: int,
    cpu: str,
    args: str,
    recording: Recording,
    images: Sequence[DiskImage],
) -> Opened:
    placed = place_image(image, spec, memory, args)
    ram = Ram(sum(size for _, size in spec.ram_regions(memory)))
    engine = UnicornEngine(image.arch, ram, cpu)
    door = Door(recording.log, lambda: max(engine.icount - 1, 0))
    disks = Disks(images)
    board = Board(spec, engine, memory, door, placed, args, disks.disks)
    marks = Marks(board, door, None, disks=disks)
    timeline = Timeline(board, door, recording.log, marks)
    timeline.index.use(recording.open_index)
    return Opened(timeline, recording, board, door, None, ram, [])


def record(
    path: Path | None,
    image_path: Path,
    options: GuestOptions,
    *,
    interval: float = INTERVAL,
    budget: int = BUDGET,
    checkpoint_memory: int = MEMORY_BUDGET,
    starting: str = START,
    disks: Sequence[NewDisk] = (),
    say: Callable[[str], None] = lambda _line: None,
) -> Opened:
    """Begin a recording of ``image_path`` in directory ``path`` (default: ``NAME.rrgdb`` here), standing at icount 0.

    ``interval``: seconds of guest time between automatic snapshots; ``budget``: bytes that the store may take;
    ``checkpoint_memory``: bytes that checkpoints may take, and half of that again snapshots that wait for the disk;
    ``starting``: name of the starting snapshot; ``disks``: the guest's, in the order of their slots.

    Raises OSError, ImageError, OptionError, RecordingError, StoreError: one line each.
    """
    data = read_image(image_path, MAX_FILE)
    image, spec = _image_asked_for(data, str(image_path), options)
    memory = options.memory if options.memory is not None else spec.default_ram
    try:
        spec.check_ram(memory)
    except ValueError as e:
        raise OptionError(f"-m: {e}") from None
    cpu = options.cpu or next(iter(image.arch.engine_models))
    if cpu not in image.arch.engine_models:
        raise OptionError(f"--cpu {cpu}: {image.arch.name} has {', '.join(image.arch.engine_models)}")
    if not options.args.isprintable() or len(options.args) > MAX_ARGS:
        raise OptionError(f"ARGS {ascii(options.args)[:60]}: expected at most {MAX_ARGS} printable characters")
    if not image_path.name.isprintable():
        raise OptionError(f"IMAGE {image_path.name!a}: expected a name of printable characters")
    placed = place_image(image, spec, memory, options.args)
    problem = naming.problem(starting) if starting != START else None
    if problem is not None:
        raise OptionError(f"--rrsnapshot: {problem}")
    chosen: dict[str, Option] = {"args": options.args}
    if options.entry is not None:
        chosen["entry"] = options.entry
    images = _new_disks(disks, spec)
    listed = [Disk(i.name, str(i.path), i.format, i.size, i.mtime_ns or 0, i.readonly) for i in images]
    with ExitStack() as stack:
        for each in images:
            stack.callback(each.close)
        recording = Recording.create(
            path or default_path(image_path.name, Path.cwd()),
            board=spec.name,
            cpu=cpu,
            ram_bytes=memory,
            images=[NewImage(image_path.name, KERNEL, data, options.load)],
            engine=build_id(),
            options=chosen,
            disks=listed,
            revision=spec.revision,
        )
        stack.callback(_give_up, recording)
        opened = _build(image, spec, memory, cpu, options.args, recording, images)
        opened.timeline.marks.budget = checkpoint_memory
        if placed.left_out:
            say(placed.left_out)
        _go_live(opened, interval, budget, say, starting)
        stack.pop_all()
        return opened


def _go_live(opened: Opened, interval: float, budget: int, say: Callable[[str], None], starting: str = START) -> Opened:
    t, log = opened.timeline, opened.recording.log
    images = t.marks.disks.images
    recording = opened.recording
    owner = recording.manifest.recording_id
    kept = overlays.Disks.create(recording.path, images, owner) if _have_overlays(images) else None
    opened.store = SnapshotStore.create(opened.recording.snapshots, opened.ram.pages, kept)
    opened.store.order(log.sync)
    t.marks.use_store(opened.store)
    t.marks.disks.on_many = opened.guest.engine.interrupt
    t.marks.take_snapshot(starting)
    t.marks.flush()
    recorder = Recorder(
        opened.guest,
        opened.door,
        log,
        t.marks,
        t.index,
        opened.store,
        interval=interval,
        budget=budget,
        waiting=t.marks.budget // 2,
        say=say,
    )
    t.go_live(recorder)
    recorder.close_chunk()
    return opened


def _have_overlays(images: Sequence[DiskImage]) -> bool:
    return any(not image.readonly for image in images)


def _build_script(arch: Arch, uc: Any, memory: int, recording: Recording) -> Opened:
    ram = Ram(memory)
    engine = ScriptEngine(arch, ram, uc)
    door = Door(recording.log, lambda: max(engine.icount - 1, 0))
    guest = ScriptGuest(engine, door)
    marks = Marks(guest, door, None)
    timeline = Timeline(guest, door, recording.log, marks)
    timeline.index.use(recording.open_index)
    return Opened(timeline, recording, guest, door, None, ram, [])


def record_script(
    path: Path,
    uc: Any,
    arch: Arch,
    memory: int,
    *,
    interval: float = INTERVAL,
    budget: int = BUDGET,
    say: Callable[[str], None] = lambda _line: None,
) -> Opened:
    """Begin a recording of what a script does with ``uc``, a plain ``unicorn.Uc``, in directory ``path``, standing at
    icount 0. ``memory``: bytes that the script can map altogether, a multiple of 4096.

    Raises OSError, EngineError, RecordingError, StoreError: one line each.
    """
    recording = Recording.create(
        path,
        kind="script",
        board=arch.name,
        cpu=str(uc.ctl_get_cpu_model()),
        ram_bytes=memory,
        images=[],
        engine=build_id(),
    )
    try:
        return _go_live(_build_script(arch, uc, memory, recording), interval, budget, say)
    except BaseException:
        _give_up(recording)
        raise


def _give_up(recording: Recording) -> None:
    """Nothing was recorded: nothing is left."""
    with suppress(Error):
        recording.close()
    recording.remove()


def _replay_script(recording: Recording) -> Opened:
    guest, misfit = recording.manifest.guest, recording.misfit
    if guest.images:
        raise misfit("guest.images", "none, of a script's machine", len(guest.images))
    if guest.disks:
        raise misfit("guest.disks", "none, of a script's machine", len(guest.disks))
    arch = ARCHES.get(guest.board)
    if arch is None:
        raise misfit("guest.board", f"a CPU family, one of {', '.join(ARCHES)}", guest.board)
    if not guest.ram_bytes or guest.ram_bytes % PAGE:
        raise misfit("guest.ram_bytes", f"a positive multiple of {PAGE}", guest.ram_bytes)
    if not re.fullmatch(r"[0-9]{1,9}", guest.cpu):
        raise misfit("guest.cpu", "Unicorn's number of a model", guest.cpu)
    try:
        uc = new_uc(arch, int(guest.cpu))
    except EngineError as e:
        raise misfit("guest.cpu", f"Unicorn's number of a model ({e})", guest.cpu) from None
    return _build_script(arch, uc, guest.ram_bytes, recording)


def _replay_board(recording: Recording, moved: Mapping[str, Path], *, disks_needed: bool) -> Opened:
    image, spec, args = _image_recorded(recording)
    guest = recording.manifest.guest
    images, messages = _disks_of(recording, moved, needed=disks_needed)
    opened = _build(image, spec, guest.ram_bytes, guest.cpu, args, recording, images)
    opened.messages += messages
    return opened


def replay(
    path: Path,
    *,
    writable: bool = True,
    checkpoint_memory: int = MEMORY_BUDGET,
    disks: Mapping[str, Path] | None = None,
    disks_needed: bool = True,
) -> Opened:
    """Open a recording, standing at icount 0. ``writable``: named snapshots can be taken, if nobody else writes.
    ``checkpoint_memory``: bytes that checkpoints may take. ``disks``: where images of disks are now, by the names of
    the disks; not ``disks_needed``: the guest will not run, so they may be missing.

    Raises RecordingError, ManifestError, LogError, OptionError: one line each. What is not
    usable but not needed either is told in ``messages``, a line each.
    """
    recording = Recording.open(path, writable=writable)
    try:
        script = recording.manifest.guest.kind == "script"
        if disks and not recording.manifest.guest.disks:
            raise OptionError(f"--disk {next(iter(disks))}: the recording has no disks")
        opened = (
            _replay_script(recording) if script else _replay_board(recording, disks or {}, disks_needed=disks_needed)
        )
        opened.door.reason = behaviour.difference(recording.manifest, opened.guest.engine.arch.name)
        opened.timeline.marks.budget = checkpoint_memory
        try:
            opened.messages += _attach_store(opened, path)
        except WrongMachineError as e:
            raise RecordingError(f"{recording.snapshots}: {e}") from None
        if script:
            # What the script did before its first instruction.
            opened.timeline.seek(opened.timeline.start)
        if recording.manifest.engine != build_id():
            opened.messages.append(
                f"recorded with {recording.manifest.engine}, replaying with {build_id()}: a divergence would be told"
            )
        if recording.damage:
            opened.messages.append(recording.damage)
        elif recording.log.truncated_bytes:
            opened.messages.append(
                f"the event log ends in an incomplete chunk: history ends at icount {recording.log.horizon}"
            )
        opened.messages[:] = map(shown, opened.messages)
    except BaseException:
        recording.close()
        raise
    return opened


def _attach_store(opened: Opened, path: Path) -> list[str]:
    messages: list[str] = []
    store: SnapshotStore | None = None
    if opened.recording.writable:
        try:
            store = _open_store(opened, writable=True)
        except StoreError as e:
            messages.append(f"{e}; opened for reading: no new snapshots")
    try:
        store = store or _open_store(opened, writable=False)
    except StoreError as e:
        return [f"{e}; replay begins with the images"]
    messages += [] if messages else store.damage
    beyond = [s for s in store.snapshots if s.icount > opened.timeline.end]
    messages += [f"{path}: snapshot {s.name} lies behind the end of the log and is passed over" for s in beyond]
    opened.store = store
    opened.timeline.marks.use_store(store)
    return messages + opened.timeline.marks.adopt_store(opened.timeline.end)


def _open_store(opened: Opened, *, writable: bool) -> SnapshotStore:
    """Raises StoreError; nothing is open then."""
    recording, images = opened.recording, opened.timeline.marks.disks.images
    manifest = recording.manifest
    kept: overlays.Disks | None = None
    if _have_overlays(images):
        backing = [disk.path for disk in manifest.guest.disks]
        kept = overlays.Disks.open(recording.path, images, manifest.recording_id, writable=writable, backing=backing)
    try:
        return SnapshotStore.open(recording.snapshots, opened.ram.pages, writable=writable, disks=kept)
    except BaseException:
        if kept is not None:
            kept.close()
        raise


__all__ = [
    "BUDGET",
    "INTERVAL",
    "MEMORY_BUDGET",
    "GuestOptions",
    "NewDisk",
    "Opened",
    "OptionError",
    "record",
    "record_script",
    "replay",
]
