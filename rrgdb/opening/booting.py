"""What a guest boots from: the user's files as images of a recording, and those as the description of its start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rrgdb.board.firmware.boot import Boot, File, Loader, default_firmware
from rrgdb.board.firmware.image import MAX_FILE
from rrgdb.board.spec import BoardSpec
from rrgdb.opening.options import BootFiles, LoaderFile, OptionError
from rrgdb.opening.settings import Settings
from rrgdb.recording.directory import NewImage
from rrgdb.recording.files import read_image
from rrgdb.recording.manifest import MAX_IMAGES, MAX_TEXT

KERNEL, INITRD, FIRMWARE, DTB = "kernel", "initrd", "firmware", "dtb"
LOADER, LOADER_RAW, LOADER_DATA = "loader", "loader-raw", "loader-data"
"""a file; one that is put into RAM as it is, whatever it holds; a number as it stands in memory"""
LOADERS = (LOADER, LOADER_RAW, LOADER_DATA)
ROLES = (KERNEL, INITRD, FIRMWARE, DTB, *LOADERS)
MAX_DATA = 8
"""bytes of a number"""


Shown = tuple[NewImage, str]
"""an image, and the file that messages name"""


class Images:
    """Images of a new recording, each with a name of its own."""

    def __init__(self) -> None:
        self.all: list[Shown] = []

    def add(self, role: str, name: str, data: bytes, address: int | None, shown: str) -> str:
        """Returns the name that it got."""
        taken = {image.name for image, _ in self.all}
        unique, number = name, 0
        while unique in taken:
            number += 1
            unique = f"{name[: MAX_TEXT - 8]}-{number}"
        self.all.append((NewImage(unique, role, data, address), shown))
        return unique

    def add_file(self, role: str, path: Path, address: int | None = None) -> str:
        """Raises OSError, OptionError."""
        if not path.name.isprintable():
            raise OptionError(f"{path.name!a}: expected a name of printable characters")
        return self.add(role, path.name, read_image(path, MAX_FILE), address, str(path))


def images_of(files: BootFiles) -> tuple[Images, str | int | None]:
    """The images, without the firmware that a board has by itself, and where the CPU starts (``Settings.start``).
    Raises OSError, OptionError."""
    images, start = Images(), None
    if len(files.loaders) > MAX_IMAGES - len(ROLES):
        raise OptionError(f"-device loader: expected at most {MAX_IMAGES - len(ROLES)} of them")
    named = ((KERNEL, files.kernel), (INITRD, files.initrd), (FIRMWARE, files.firmware), (DTB, files.dtb))
    for role, path in named:
        if path is not None:
            images.add_file(role, path)
    for loader in files.loaders:
        where = _add_loader(images, loader)
        start = where if loader.starts else start
    return images, start


def _add_loader(images: Images, loader: LoaderFile) -> str | int:
    if loader.path is not None:
        return images.add_file(LOADER_RAW if loader.raw else LOADER, loader.path, loader.address)
    address = loader.address or 0
    if not loader.data:
        return address
    return images.add(LOADER_DATA, f"data-{address:x}", loader.data, address, f"-device loader,addr={address:#x}")


def add_firmware(images: Images, files: BootFiles, spec: BoardSpec) -> None:
    """The firmware that the board has by itself, unless there is one or it is not wanted. Raises OSError,
    OptionError."""
    own = None if files.no_firmware or files.firmware is not None else default_firmware(spec)
    if own is None:
        return
    path = next((path for path in map(Path, own.paths) if path.exists()), None)
    if path is None:
        needed = f"the Debian package {own.package}" if own.package else "firmware"
        raise OptionError(f"-bios: board {spec.name} needs {needed}: expected it installed, -bios FILE or -bios none")
    images.add_file(FIRMWARE, path)


def description(images: Sequence[Shown], settings: Settings) -> Boot:
    """How the guest starts. ValueError if the images do not go together: a line that says what was expected."""
    single: dict[str, File] = {}
    loaders = []
    for image, shown in images:
        file, address = File(shown, image.data), image.load_address
        if image.role in LOADERS:
            loaders.append(_loader(image, file, image.name == settings.start))
        elif image.role not in ROLES or image.role in single or address is not None:
            raise ValueError(f"at most one image of each role of {', '.join(ROLES[:4])}, without an address")
        else:
            single[image.role] = file
    if isinstance(settings.start, int):
        loaders.append(Loader(settings.start, start=True))
    elif settings.start is not None and not any(loader.start for loader in loaders):
        raise ValueError(f"start: an image of a loader, got {settings.start!a}")
    return Boot(
        kernel=single.get(KERNEL),
        initrd=single.get(INITRD),
        append=settings.append or "",
        dtb=single.get(DTB),
        bios=single.get(FIRMWARE),
        loaders=tuple(loaders),
        seeds=settings.seeds,
    )


def _loader(image: NewImage, file: File, start: bool) -> Loader:
    if image.role == LOADER_DATA:
        if not 0 < len(image.data) <= MAX_DATA or image.load_address is None:
            raise ValueError(f"{LOADER_DATA}: 1 to {MAX_DATA} bytes at an address")
        return Loader(image.load_address, data=image.data, start=start)
    if image.role == LOADER_RAW and image.load_address is None:
        raise ValueError(f"{LOADER_RAW}: a file at an address")
    return Loader(image.load_address or 0, file, raw=image.role == LOADER_RAW, start=start)
