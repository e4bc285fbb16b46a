"""The images of a guest's disks: as the user asked for them, and as a recording has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rrgdb.board.spec import BoardSpec
from rrgdb.opening.options import NewDisk, OptionError
from rrgdb.recording.directory import Recording, RecordingError, recording_of
from rrgdb.recording.manifest import MAX_PATH, Disk
from rrgdb.snapshots.errors import StoreError
from rrgdb.snapshots.images import FORMATS, NAME, DiskImage, looks_like_qcow2


def new_disks(disks: Sequence[NewDisk], spec: BoardSpec) -> list[DiskImage]:
    """Raises OptionError, StoreError."""
    if len(disks) > spec.disks:
        raise OptionError(f"--disk: board {spec.name} has room for {spec.disks} disks")
    names = [f"disk{i}" if disk.name is None else disk.name for i, disk in enumerate(disks)]
    for name, disk in zip(names, disks, strict=True):
        where = f"--disk {disk.path}"
        if not NAME.fullmatch(name) or names.count(name) > 1:
            raise OptionError(f"{where}: name {name!r}, expected one of its own, of letters, digits, - and _")
        if disk.format not in (None, *FORMATS):
            raise OptionError(f"{where}: format {disk.format!r}, expected one of {', '.join(FORMATS)}")
        if not str(disk.path.resolve()).isprintable() or len(str(disk.path.resolve())) > MAX_PATH:
            raise OptionError(f"{where}: expected a path of at most {MAX_PATH} printable characters")
        if disk.format is None and looks_like_qcow2(disk.path):
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


def disks_of(recording: Recording, moved: Mapping[str, Path], *, needed: bool) -> tuple[list[DiskImage], list[str]]:
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
