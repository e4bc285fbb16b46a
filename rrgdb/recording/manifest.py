"""The manifest: ``manifest.json`` in a recording, what the guest is made of. Strictly typed, no path of any machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from rrgdb.errors import Error
from rrgdb.recording.files import read_regular, write_atomically

FORMAT = "rrgdb-recording"
VERSION = 3
"""1 has no behaviour and no revision: both are 1. 2 has one image at most, and of the options those of ``_PLAIN``. The
lowest version that can say what a guest is is written, so that older readers read what they understand"""
MAX_SIZE = 1 << 20
"""bytes of the file"""
MAX_TEXT = 255
MAX_IMAGES = 64
MAX_IMAGE = 1 << 30
MAX_DISKS = 64
MAX_DISK = 1 << 56
MAX_PATH = 4096
DISK_FORMATS = ("raw", "qcow2")
MAX_OPTIONS = 64
MAX_RAM = 1 << 40
MAX_NUMBER = 1 << 31
"""of a behaviour or a revision"""
KINDS = ("board", "script")
_PLAIN = frozenset({"args", "entry"})
"""options of version 2"""

Option = str | int | bool


class ManifestError(Error):
    """The manifest cannot be read or written: one line with file, key and what was expected."""


@dataclass(frozen=True, slots=True)
class Image:
    """One file loaded into the guest. ``role`` is the board's word for it (kernel, bios …); ``load_address`` is None
    where the file itself says (ELF); ``size`` in bytes; ``sha256`` in lower-case hex."""

    name: str
    role: str
    load_address: int | None
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk, whose image stays where the user has it: ``path``, absolute. ``size``: bytes of the disk, whole sectors;
    ``mtime_ns``: when the file was changed last (nanoseconds since the Unix epoch)."""

    name: str
    path: str
    format: str
    size: int
    mtime_ns: int
    readonly: bool


@dataclass(frozen=True, slots=True)
class Guest:
    """What is debugged. ``kind`` is ``board`` or ``script``; ``ram_bytes`` in bytes; ``options`` are the
    board's, flat. A script's guest has no images: the event log says what the script made of its machine. ``disks`` are
    not in the file of a guest that has none. ``revision``: of the board; a script has 1."""

    kind: str
    board: str
    cpu: str
    ram_bytes: int
    images: tuple[Image, ...]
    options: Mapping[str, Option]
    disks: tuple[Disk, ...] = ()
    revision: int = 1

    @property
    def version(self) -> int:
        """The lowest version of a manifest that can say this."""
        return 2 if len(self.images) < 2 and self.options.keys() <= _PLAIN else VERSION


@dataclass(frozen=True, slots=True)
class Manifest:
    """``created``: ISO 8601 with offset. ``engine`` and ``rrgdb``: what recorded it, as a replay by anything else may
    differ. ``log_bytes``: size of the event log when the recording was finished; None: it never was (a killed
    recorder). ``behaviour``: see ``rrgdb.recording.behaviour``."""

    recording_id: bytes
    created: str
    rrgdb: str
    engine: str
    guest: Guest
    log_bytes: int | None = None
    behaviour: int = 1

    def to_json(self) -> str:
        """The file's text; the same manifest gives the same text."""
        head = {"format": FORMAT, "version": self.guest.version, "created": self.created}
        built: dict[str, str | int | None] = {
            "recording_id": self.recording_id.hex(),
            "rrgdb": self.rrgdb,
            "engine": self.engine,
            "behaviour": self.behaviour,
        }
        built |= {"log_bytes": self.log_bytes}
        guest = asdict(self.guest)
        if not guest["disks"]:
            del guest["disks"]
        return json.dumps(head | built | {"guest": guest}, indent=2) + "\n"


def misfit(path: Path, key: str, expected: str, got: object) -> ManifestError:
    """The error for a value of the manifest at ``path`` that is not what was expected."""
    shown = ascii(got)
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    return ManifestError(f"{path}: {key}: expected {expected}, got {shown}")


class _Fields:
    """One JSON object being taken apart; ``where`` is its key, for messages."""

    def __init__(self, path: Path, where: str, value: object) -> None:
        self._path = path
        self._where = where
        if not isinstance(value, dict):
            self.refuse("", "an object", value)
        self._left: dict[str, Any] = dict(value)

    def key(self, key: str) -> str:
        return ".".join(filter(None, (self._where, key)))

    def refuse(self, key: str, expected: str, got: object) -> NoReturn:
        raise misfit(self._path, self.key(key) or "top level", expected, got)

    def take(self, key: str) -> Any:
        if key not in self._left:
            raise ManifestError(f"{self._path}: {self.key(key)}: expected this key, it is missing")
        return self._left.pop(key)

    def text(self, key: str, pattern: str = r".{1,255}", expected: str = "1 to 255 printable characters") -> str:
        value = self.take(key)
        if not isinstance(value, str) or not value.isprintable() or not re.fullmatch(pattern, value):
            self.refuse(key, expected, value)
        return value

    def integer(self, key: str, limit: int) -> int:
        value = self.take(key)
        if type(value) is not int or not 0 <= value < limit:
            self.refuse(key, f"an integer from 0 to {limit - 1}", value)
        return value

    def number(self, key: str) -> int:
        """A behaviour or a revision."""
        value = self.take(key)
        if type(value) is not int or not 1 <= value < MAX_NUMBER:
            self.refuse(key, f"an integer from 1 to {MAX_NUMBER - 1}", value)
        return value

    def items(self, key: str, limit: int) -> list[object]:
        value = self.take(key)
        if not isinstance(value, list) or len(value) > limit:
            self.refuse(key, f"a list of at most {limit}", value)
        return value

    def has(self, key: str) -> bool:
        """Whether an optional key is there."""
        return key in self._left

    def rest(self) -> dict[str, Any]:
        """What was not taken."""
        return self._left

    def finish(self) -> None:
        for key, value in self._left.items():
            self.refuse(ascii(key)[1:-1][:40], "no such key", value)


def _image(path: Path, where: str, value: object) -> Image:
    fields = _Fields(path, where, value)
    address = None
    name, role = fields.text("name"), fields.text("role")
    raw_address = fields.take("load_address")
    if raw_address is not None:
        if type(raw_address) is not int or not 0 <= raw_address < 1 << 64:
            fields.refuse("load_address", "null or an address below 2**64", raw_address)
        address = raw_address
    size = fields.integer("size", MAX_IMAGE + 1)
    sha256 = fields.text("sha256", r"[0-9a-f]{64}", "64 lower-case hex digits")
    fields.finish()
    return Image(name, role, address, size, sha256)


def _disk(path: Path, where: str, value: object) -> Disk:
    fields = _Fields(path, where, value)
    name = fields.text("name", r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", "a name of letters, digits, - and _")
    place = fields.text("path", rf"/.{{0,{MAX_PATH - 1}}}", "an absolute path of printable characters")
    kind = fields.text("format")
    if kind not in DISK_FORMATS:
        fields.refuse("format", " or ".join(DISK_FORMATS), kind)
    size = fields.integer("size", MAX_DISK + 1)
    if not size or size % 512:
        fields.refuse("size", "a multiple of 512 above 0", size)
    mtime_ns = fields.take("mtime_ns")
    if type(mtime_ns) is not int or not -(1 << 63) <= mtime_ns < 1 << 63:
        fields.refuse("mtime_ns", "a number of nanoseconds", mtime_ns)
    readonly = fields.take("readonly")
    if type(readonly) is not bool:
        fields.refuse("readonly", "true or false", readonly)
    fields.finish()
    return Disk(name, place, kind, size, mtime_ns, readonly)


def _options(path: Path, where: str, value: object) -> dict[str, Option]:
    fields = _Fields(path, where, value)
    given = fields.rest()
    if len(given) > MAX_OPTIONS:
        fields.refuse("", f"at most {MAX_OPTIONS} options", len(given))
    options: dict[str, Option] = {}
    for key, option in given.items():
        if not key.isprintable() or not 0 < len(key) <= MAX_TEXT:
            fields.refuse("", "option names of 1 to 255 printable characters", key)
        if not isinstance(option, str | int) or (isinstance(option, str) and not option.isprintable()):
            fields.refuse(key, "a printable string, an integer or a boolean", option)
        if type(option) is int and not -(1 << 63) <= option < 1 << 64:
            fields.refuse(key, "an integer of 64 bits", option)
        options[key] = option
    return options


def _guest(path: Path, value: object, version: int) -> Guest:
    fields = _Fields(path, "guest", value)
    kind = fields.text("kind")
    if kind not in KINDS:
        fields.refuse("kind", " or ".join(KINDS), kind)
    revision = fields.number("revision") if version > 1 else 1
    board, cpu = fields.text("board"), fields.text("cpu")
    ram_bytes = fields.integer("ram_bytes", MAX_RAM + 1)
    entries = fields.items("images", MAX_IMAGES)
    images = tuple(_image(path, f"guest.images[{index}]", entry) for index, entry in enumerate(entries))
    names = [image.name for image in images]
    if len(set(names)) != len(names):
        fields.refuse("images", "a different name for each image", sorted(names))
    options = _options(path, "guest.options", fields.take("options"))
    disks: tuple[Disk, ...] = ()
    if fields.has("disks"):
        listed = fields.items("disks", MAX_DISKS)
        disks = tuple(_disk(path, f"guest.disks[{index}]", entry) for index, entry in enumerate(listed))
        names = [disk.name for disk in disks]
        if not disks or len(set(names)) != len(names):
            fields.refuse("disks", "one disk at least, and a different name for each", sorted(names))
    fields.finish()
    return Guest(kind, board, cpu, ram_bytes, images, options, disks, revision)


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is given twice")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def parse(data: bytes, path: Path) -> Manifest:
    """Parse the bytes of a manifest; ManifestError names ``path`` and the key."""
    if len(data) > MAX_SIZE:
        raise ManifestError(f"{path}: expected at most {MAX_SIZE} bytes, got {len(data)}")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except RecursionError:
        raise ManifestError(f"{path}: expected JSON of little depth") from None
    except ValueError as error:
        reason = ascii(str(error))[1:-1][:80]
        raise ManifestError(f"{path}: expected JSON in UTF-8: {reason}") from None
    fields = _Fields(path, "", value)
    if (kind := fields.take("format")) != FORMAT:
        fields.refuse("format", repr(FORMAT), kind)
    version = fields.take("version")
    if type(version) is not int or version < 1:
        fields.refuse("version", "a version number", version)
    if version > VERSION:
        fields.refuse("version", f"at most {VERSION}: this recording was made by a newer rrgdb", version)
    created = fields.text("created")
    try:
        datetime.fromisoformat(created)
    except ValueError:
        fields.refuse("created", "a date and time in ISO 8601", created)
    recording_id = bytes.fromhex(fields.text("recording_id", r"[0-9a-f]{32}", "32 lower-case hex digits"))
    rrgdb, engine = fields.text("rrgdb"), fields.text("engine")
    behaviour = fields.number("behaviour") if version > 1 else 1
    log_bytes = fields.take("log_bytes")
    if log_bytes is not None and (type(log_bytes) is not int or not 0 < log_bytes < 1 << 63):
        fields.refuse("log_bytes", "null or a number of bytes", log_bytes)
    guest = _guest(path, fields.take("guest"), version)
    fields.finish()
    return Manifest(recording_id, created, rrgdb, engine, guest, log_bytes, behaviour)


def read(path: Path) -> Manifest:
    """Read a manifest file; ManifestError if that fails."""
    try:
        data = read_regular(path, MAX_SIZE)
    except OSError as error:
        raise ManifestError(f"{path}: cannot read the manifest: {error.strerror}") from error
    return parse(data, path)


def write(path: Path, manifest: Manifest) -> None:
    """Write a manifest in one step; ManifestError if it would not parse or cannot be written."""
    data = manifest.to_json().encode()
    parse(data, path)
    try:
        write_atomically(path, data)
    except OSError as error:
        raise ManifestError(f"{path}: cannot write the manifest: {error.strerror}") from error
