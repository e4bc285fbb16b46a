"""A recording: the directory that holds everything needed to replay, and nothing of the machine that it was made on.

::

    manifest.json              what the guest is made of (``rrgdb.recording.manifest``); written last
    images/<sha256>-<name>     the guest's images, by content: 16 hex digits and the name made harmless
    events.log                 the event log (``rrgdb.recording.log``)
    snapshots.qcow2            the snapshot store (``rrgdb.snapshots``)
    history.index              the index (``rrgdb.recording.index``)
    lock                       locked (flock) while the recording is open; holds the writer's process id
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from rrgdb.errors import Error
from rrgdb.recording import manifest as manifests
from rrgdb.recording.behaviour import BEHAVIOUR
from rrgdb.recording.files import (
    NOT_OURS,
    READ_ONLY,
    LockedError,
    lock,
    open_directory,
    overlay_name,
    read_regular,
    unlock,
    write_atomically,
)
from rrgdb.recording.index import IndexFile
from rrgdb.recording.log import EventLog
from rrgdb.recording.manifest import Disk, Guest, Image, Manifest, ManifestError, Option
from rrgdb.version import VERSION

MANIFEST = "manifest.json"
IMAGES = "images"
EVENTS = "events.log"
SNAPSHOTS = "snapshots.qcow2"
INDEX = "history.index"
LOCK = "lock"


class RecordingError(Error):
    """The recording cannot be created or opened: one line with the path and what was expected."""


class RecordingBusyError(RecordingError):
    """The recording can be read but not written: another process writes it, or its place is read-only."""


class NewImage(NamedTuple):
    """An image to be copied into a new recording; see ``manifest.Image``."""

    name: str
    role: str
    data: bytes
    load_address: int | None = None


def image_file(image: Image) -> str:
    """Name of an image's file in ``images/``: whatever the manifest says, it stays in there."""
    return f"{image.sha256[:16]}-{re.sub(r'[^A-Za-z0-9._+-]', '_', image.name)[-64:]}"


def _make_directory(path: Path) -> int | None:
    """Make ``path`` the directory of a new recording. Returns the mode of one that was there before."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            raise RecordingError(f"{path}: expected a new or an empty directory") from None
        try:
            if os.listdir(fd):
                raise RecordingError(f"{path}: expected a new or an empty directory") from None
            mode = os.fstat(fd).st_mode & 0o7777
            os.fchmod(fd, 0o700)
        except OSError as error:
            raise RecordingError(f"{path}: cannot create the recording: {error.strerror}") from error
        finally:
            os.close(fd)
        return mode
    except OSError as error:
        raise RecordingError(f"{path}: cannot create the recording: {error.strerror}") from error
    return None


def _remove(path: Path, guest: Guest, mode: int | None) -> None:
    """Remove what a recording consists of, and nothing else; the directory if that leaves it empty, unless it was there
    before, with this ``mode``."""
    names = [MANIFEST, f"{MANIFEST}.tmp", EVENTS, SNAPSHOTS, INDEX, LOCK]
    names += [overlay_name(disk.name) for disk in guest.disks if not disk.readonly]
    with contextlib.suppress(OSError), open_directory(path) as directory:
        with contextlib.suppress(OSError), open_directory(IMAGES, within=directory) as images:
            for image in guest.images:
                for name in (image_file(image), f"{image_file(image)}.tmp"):
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=images)
        with contextlib.suppress(OSError):
            os.rmdir(IMAGES, dir_fd=directory)
        for name in names:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)
        if mode is not None:
            os.fchmod(directory, mode)
    if mode is None:
        with contextlib.suppress(OSError):
            path.rmdir()


def _read_image(path: Path, image: Image) -> bytes:
    """The image's bytes, as the manifest describes them. ``path``: in the directory of images."""
    try:
        with open_directory(path.parent.parent) as top, open_directory(IMAGES, within=top) as images:
            data = read_regular(path.name, image.size, directory=images)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise RecordingError(f"{path}: cannot read image {image.name!r}: {error.strerror}") from error
        data = b""
    if len(data) != image.size or hashlib.sha256(data).hexdigest() != image.sha256:
        raise RecordingError(f"{path}: image {image.name!r} was changed since the recording was made")
    return data


def recording_of(path: Path) -> Path | None:
    """The recording that a file, under whatever name it was given, belongs to."""
    path = path.resolve()
    own = (MANIFEST, EVENTS, SNAPSHOTS, INDEX, LOCK)
    if path.name in own or re.fullmatch(re.escape(overlay_name("X")).replace("X", ".+"), path.name):
        directory = path.parent
    elif path.parent.name == IMAGES:
        directory = path.parent.parent
    else:
        return None
    return directory if (directory / MANIFEST).is_file() and (directory / EVENTS).is_file() else None


def default_path(image_name: str, directory: Path) -> Path:
    """``<stem>.rrgdb`` in ``directory``, or if it exists the first free one of ``<stem>-1.rrgdb`` and so on."""
    stem = Path(image_name).stem or "recording"
    path = directory / f"{stem}.rrgdb"
    number = 0
    while os.path.lexists(path):
        number += 1
        path = directory / f"{stem}-{number}.rrgdb"
    return path


class Recording:
    """An open recording; a context manager that closes it. ``log`` is its event log."""

    def __init__(self, path: Path, manifest: Manifest, log: EventLog, held: int | None, writable: bool) -> None:
        self.path = path
        self.manifest = manifest
        self.log = log
        self.writable = writable
        self._lock = held
        self._mode: int | None = None

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        kind: str = "board",
        board: str,
        cpu: str,
        ram_bytes: int,
        images: Sequence[NewImage],
        engine: str,
        options: Mapping[str, Option] | None = None,
        disks: Sequence[Disk] = (),
        revision: int = 1,
    ) -> Self:
        """A new recording with an empty log, open for writing, of mode 0700.

        RecordingError if ``path`` exists and is no empty directory, or if it cannot be written; ManifestError if the
        description does not fit; LogError if the log cannot be written."""
        path = Path(path)
        entries = tuple(
            Image(image.name, image.role, image.load_address, len(image.data), hashlib.sha256(image.data).hexdigest())
            for image in images
        )
        guest = Guest(kind, board, cpu, ram_bytes, entries, dict(options or {}), tuple(disks), revision)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = Manifest(os.urandom(16), created, VERSION, engine, guest, behaviour=BEHAVIOUR)
        manifests.parse(manifest.to_json().encode(), path / MANIFEST)
        mode = _make_directory(path)
        held: int | None = None
        log: EventLog | None = None
        try:
            held = lock(path / LOCK)
            (path / IMAGES).mkdir(mode=0o700)
            for entry, image in zip(entries, images, strict=True):
                write_atomically(path / IMAGES / image_file(entry), image.data)
            log = EventLog.create(path / EVENTS, manifest.recording_id)
            log.sync()
            manifests.write(path / MANIFEST, manifest)
        except BaseException as error:
            _remove(path, guest, mode)
            if log is not None:
                log.close()
            unlock(held)
            if isinstance(error, OSError):
                raise RecordingError(f"{path}: cannot create the recording: {error.strerror}") from error
            raise
        recording = cls(path, manifest, log, held, True)
        recording._mode = mode
        return recording

    @classmethod
    def open(cls, path: Path, *, writable: bool = False) -> Self:
        """Open a recording and verify its images and its log. What was recorded never changes: ``writable`` is about
        snapshots.

        RecordingError if it is none or an image was changed, RecordingBusyError if it cannot be written;
        ManifestError and LogError as their modules say."""
        path = Path(path)
        if not (path / MANIFEST).exists():
            what = "it was never completed" if (path / LOCK).exists() else f"{MANIFEST} is missing"
            raise RecordingError(f"{path}: expected a recording: {what}")
        try:
            # Readers need no lock: what a writer has completed does not change under them.
            held = lock(path / LOCK) if writable else None
        except LockedError as error:
            raise RecordingBusyError(f"{path}: the recording is in use: {error}") from None
        except OSError as error:
            kind = RecordingBusyError if error.errno in READ_ONLY | NOT_OURS else RecordingError
            where = path / LOCK if error.errno in NOT_OURS else path
            raise kind(f"{where}: cannot open the recording for writing: {error.strerror}") from error
        try:
            manifest = manifests.read(path / MANIFEST)
            for image in manifest.guest.images:
                _read_image(path / IMAGES / image_file(image), image)
            log = EventLog.open(path / EVENTS, manifest.recording_id)
        except BaseException:
            unlock(held)
            raise
        return cls(path, manifest, log, held, writable)

    def misfit(self, key: str, expected: str, got: object) -> ManifestError:
        """The error for a value of the manifest, named by its key, that fits no guest."""
        return manifests.misfit(self.path / MANIFEST, key, expected, got)

    @property
    def snapshots(self) -> Path:
        """Path of the snapshot store, which ``rrgdb.snapshots`` creates."""
        return self.path / SNAPSHOTS

    def open_index(self) -> IndexFile:
        """The index; IndexFileError if there is none that can be used."""
        return IndexFile.open(self.path / INDEX, self.manifest.recording_id, writable=self.writable)

    def image_path(self, name: str) -> Path:
        """The file of the image called ``name``; KeyError if there is none."""
        return self.path / IMAGES / image_file(self._image(name))

    def image(self, name: str) -> bytes:
        """Contents of the image called ``name``, verified again; KeyError if there is none, RecordingError."""
        return _read_image(self.image_path(name), self._image(name))

    def _image(self, name: str) -> Image:
        for image in self.manifest.guest.images:
            if image.name == name:
                return image
        raise KeyError(name)

    def remove(self) -> None:
        """Remove a new recording that was closed, and nothing else that may be in its directory by now."""
        _remove(self.path, self.manifest.guest, self._mode)

    @property
    def damage(self) -> str | None:
        """What is missing of a log that was once whole, in one line."""
        expected = self.manifest.log_bytes
        if expected is None or (self.log.size == expected and not self.log.truncated_bytes):
            return None
        return (
            f"{self.log.path}: {self.log.size} whole bytes, expected {expected}: the recording is damaged behind "
            f"icount {self.log.horizon}"
        )

    def close(self) -> None:
        """Close the log (synced), say in the manifest of a new recording that it is finished, and let go of the lock;
        idempotent."""
        try:
            if self.log.writable:
                self.log.close()
                self.manifest = replace(self.manifest, log_bytes=self.log.size)
                manifests.write(self.path / MANIFEST, self.manifest)
            else:
                self.log.close()
        finally:
            unlock(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
