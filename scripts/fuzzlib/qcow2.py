"""rrgdb.qcow2 under damaged images: reader, check, repair, and the writer on what it accepts."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fuzzlib import qcow2_corpus, qcow2_damage
from rrgdb.qcow2 import Image, Qcow2Error, Snapshot, check_image, repair_image
from rrgdb.qcow2.cli import main as command_line

_T = TypeVar("_T")
# What the names in an image may lead to: no such file, a directory, a name that is too long.
_NAMES = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP)
_READ = 1 << 20
"""bytes that are read of a disk at most at once: damage makes disks of exabytes"""
_EXTENTS = 20_000
_VERBS = (["info"], ["info", "--output=json"], ["check"], ["map"], ["map", "--output=json"], ["snapshot", "-l"])


class Qcow2:
    def __init__(self, work: Path) -> None:
        self._seeds = qcow2_corpus.build(work / "corpus")

    def damage(self, rng: random.Random) -> dict[str, bytes]:
        """One to six changes of one of the sound images; mostly of the top of its chain."""
        files = dict(rng.choice(self._seeds))
        names = [name for name in files if files[name][:4] == b"QFI\xfb"]
        name = qcow2_corpus.TOP if rng.random() < 0.85 else rng.choice(names)
        files[name] = qcow2_damage.damage(files[name], rng)
        return files

    def exercise(self, directory: Path, rng: random.Random) -> None:
        """All that a user may do with the image ``TOP``; raises what is not a clear error."""
        path = directory / qcow2_corpus.TOP
        before = {file.name: file.read_bytes() for file in directory.iterdir()}
        sound = _sound(directory)
        for backing in (True, False):
            _reading(path, backing, rng)
        if rng.random() < 0.3:
            _command([*rng.choice(_VERBS), str(path)])
        for file, content in before.items():
            if (directory / file).read_bytes() != content:
                raise AssertionError(f"reading has changed {file}")
        _repairing(path, rng)
        for file, content in before.items():
            (directory / file).write_bytes(content)
        _writing(path, sound, rng)


def _attempt(action: Callable[[], _T]) -> _T | None:
    """The result of ``action``, None after an error that says in one line what is wrong with the file."""
    try:
        return action()
    except Qcow2Error as error:
        said = str(error)
        if "\n" in said or "offset" not in said:
            raise AssertionError(f"not one line with an offset: {said!r}") from error
    return None


def _sound(directory: Path) -> bool:
    """Whether no image there has a corruption."""
    images = [path for path in directory.iterdir() if path.read_bytes()[:4] == b"QFI\xfb"]
    return all(_attempt(lambda p=image: check_image(p).corruption_count == 0) for image in images)


def _open(path: Path, *, writable: bool, backing: bool) -> Image | None:
    try:
        return _attempt(lambda: Image.open(path, writable=writable, backing=backing))
    except OSError as error:
        if not backing or error.errno not in _NAMES:
            raise
        return None


def _ranges(size: int, rng: random.Random) -> list[tuple[int, int]]:
    """(offset, length) inside of a disk: its beginning, its end, something between."""
    starts = [0, max(0, size - 70_000), rng.randrange(size + 1)]
    return [(start, min(_READ, size - start)) for start in starts]


def _reading(path: Path, backing: bool, rng: random.Random) -> None:
    image = _open(path, writable=False, backing=backing)
    if image is None:
        return
    with image:
        _attempt(lambda: json.dumps(image.info().as_json()))
        for offset, length in _ranges(image.size, rng):
            _attempt(lambda at=offset, count=length: image.read(at, count))
        _attempt(lambda: sum(1 for _ in itertools.islice(image.map(), _EXTENTS)))
        for offset in (0, rng.randrange(1 << 45)):
            _attempt(lambda at=offset: image.read_vmstate(at, 300_000))
        clusters = range(0, 64 * image.cluster_size, image.cluster_size)
        _attempt(lambda: image.read_vmstate_clusters(clusters))
        _attempt(image.check)
        previous: Snapshot | None = None
        for snapshot in image.snapshots[:5]:
            _attempt(lambda s=snapshot: _read_snapshot(image, s, rng))
            for other in (None, previous):
                _attempt(lambda s=snapshot, o=other: image.diff_vmstate(o, s, 0, 1 << 40))
            previous = snapshot
        _attempt(image.reload)


def _read_snapshot(image: Image, snapshot: Snapshot, rng: random.Random) -> None:
    view = image.view(snapshot)
    for offset, length in _ranges(view.size, rng):
        _attempt(lambda at=offset, count=length: view.read(at, count))
    _attempt(lambda: view.read_vmstate(0, min(snapshot.vm_state_size, _READ)))
    clusters = range(0, 64 * image.cluster_size, image.cluster_size)
    _attempt(lambda: view.read_vmstate_clusters(clusters))
    _attempt(lambda: view.read_vmstate_clusters_into(clusters, [bytearray(image.cluster_size) for _ in clusters]))


def _command(arguments: list[str]) -> None:
    """A status of qemu-img, and at most one line of error."""
    said, wrong = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        status = command_line(arguments)
    if status not in (0, 1, 2, 3) or wrong.getvalue().count("\n") > 1:
        raise AssertionError(f"{arguments}: status {status}, {wrong.getvalue()!r}")


def _repairing(path: Path, rng: random.Random) -> None:
    """What a repair calls clean is clean, stays so, and can be written."""
    if rng.random() < 0.5:
        _attempt(lambda: repair_image(path, leaks_only=True))
    result = _attempt(lambda: repair_image(path))
    if result is None or not result.left.clean:
        return
    if not repair_image(path).found.clean:
        raise AssertionError("the repaired image is not clean")
    _writing(path, _sound(path.parent), rng)


def _writing(path: Path, sound: bool, rng: random.Random) -> None:
    """Change the image; one that was without corruption must stay so."""
    backing = rng.random() < 0.5
    image = _open(path, writable=True, backing=backing)
    if image is None:
        return
    try:
        _changes(image, sound, backing, rng)
    finally:
        _attempt(image.close)
    if sound and (left := check_image(path)).corruption_count:
        raise AssertionError(f"writing has damaged the image: {left.corruptions[:3]}")


def _changes(image: Image, sound: bool, backing: bool, rng: random.Random) -> None:
    def data(length: int) -> bytes:
        return rng.choice([b"x", b"words and ", rng.randbytes(64)]) * length

    path, cluster = Path(image.path), image.cluster_size
    for _ in range(rng.randrange(1, 8)):
        size = image.size
        offset = rng.randrange(size) if size else 0
        length = min(rng.randrange(1, 50_000), size - offset)
        whole = offset // cluster * cluster
        ids = image.snapshots[:20]
        match rng.randrange(13):
            case 0:
                _attempt(lambda at=offset, count=length: image.write(at, data(count)[:count]))
            case 1:
                _attempt(lambda at=offset, count=length: image.discard(at, count))
            case 2:
                _attempt(lambda at=offset, count=length: image.write_zeros(at, count))
            case 3:
                count = min(3 * cluster, size - whole)
                _attempt(lambda at=whole, n=count: image.write_compressed(at, data(n)[:n]))
            case 4:
                _attempt(lambda: image.write_vmstate([(rng.randrange(99) * cluster, data(cluster)[:cluster])]))
            case 5:
                _attempt(lambda: image.create_snapshot("more", vm_state_size=cluster, commit=rng.random() < 0.5))
            case 6 if ids:
                _attempt(lambda some=ids: image.apply_snapshot(rng.choice(some)))
            case 7 if ids:
                _attempt(lambda some=ids: image.delete_snapshots(rng.sample(some, rng.randrange(1, len(some) + 1))))
            case 8:
                _attempt(lambda: image.resize(rng.randrange(1000) * 512))
            case 9:
                _attempt(lambda: image.rebase(None, None, unsafe=True))
            case 10 if backing:
                name = rng.choice(("base", None) if path.with_name("base").exists() else (None,))
                _attempt(lambda to=name: _moved(image, sound, lambda: image.rebase(to, to and "raw")))
            case 11 if backing and image.backing_file in ("base", "middle"):
                _attempt(lambda: _moved(image, sound, image.commit))
            case _:
                _attempt(image.flush)


def _moved(image: Image, sound: bool, move: Callable[[], None]) -> None:
    """Commit or rebase; disk and snapshots of files without corruption read as before."""

    def contents() -> list[bytes | None]:
        disks = [image, *map(image.view, image.snapshots[:5])]
        return [_attempt(lambda d=disk: d.read(0, min(d.size, _READ))) for disk in disks]

    before = contents()
    move()
    if sound and any(old is not None and old != new for old, new in zip(before, contents(), strict=True)):
        raise AssertionError("the content has changed")
