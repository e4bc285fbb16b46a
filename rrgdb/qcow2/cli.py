"""``python -m rrgdb.qcow2``: the verbs of qemu-img that this library has, with its exit statuses."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import NoReturn, TypeVar

from .backing import RawFile, backing_format, backing_path
from .convert import copy_to_qcow2, copy_to_raw, create_raw, first_difference, open_disk
from .errors import Qcow2Error, Qcow2UsageError
from .image import Image
from .layout import whole_sectors
from .problems import CheckResult
from .progress import Meter, silent
from .repair import check_image, repair_image
from .snapshot_table import Snapshot

_SUFFIXES = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_CREATE_OPTIONS = "cluster_size, compat, refcount_bits, lazy_refcounts, compression_type, backing_file, backing_fmt"


_Closing = TypeVar("_Closing", RawFile, Image)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Qcow2UsageError(message)


def parse_size(text: str) -> int:
    """``64k``, ``1.5G``, ``512``: bytes. Raises Qcow2UsageError."""
    number, shift = text, 0
    if text[-1:].lower() in _SUFFIXES:
        number, shift = text[:-1], _SUFFIXES[text[-1].lower()]
    try:
        size = int(number) << shift if number.isascii() and number.isdecimal() else int(float(number) * (1 << shift))
    except (ValueError, OverflowError):
        raise Qcow2UsageError(f"expected a size such as 512, 64k or 1.5G, found {text!r}") from None
    if not 0 <= size < 1 << 63:
        raise Qcow2UsageError(f"expected a size from 0 to 2^63, found {text!r}")
    return size


def _options(text: str) -> dict[str, str]:
    found = {}
    for item in filter(None, text.split(",")):
        name, equals, value = item.partition("=")
        if not equals or name not in _CREATE_OPTIONS.split(", "):
            raise Qcow2UsageError(f"expected options {_CREATE_OPTIONS}, found {item!r}")
        found[name] = value
    return found


def _create(path: str, size: int, options: dict[str, str]) -> Image:
    compat = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}
    switch = {"on": True, "off": False}
    version, lazy = options.get("compat", "1.1"), options.get("lazy_refcounts", "off")
    if version not in compat or lazy not in switch:
        raise Qcow2UsageError("expected compat=0.10 or 1.1 and lazy_refcounts=on or off")
    return Image.create(
        path,
        whole_sectors(size),
        cluster_size=parse_size(options.get("cluster_size", "64k")),
        version=compat[version],
        refcount_bits=parse_size(options.get("refcount_bits", "16")),
        lazy_refcounts=switch[lazy],
        compression=options.get("compression_type", "zlib"),
        backing_file=options.get("backing_file"),
        backing_format=options.get("backing_fmt"),
    )


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=4))


def _info(args: argparse.Namespace) -> int:
    with Image.open(args.image, backing=False) as image:
        info = image.info()
    found = info.as_json()
    if args.output == "json":
        _print_json(found)
        return 0
    print(f"image: {_shown(info.path)}\nfile format: qcow2")
    print(f"virtual size: {info.size} bytes\ndisk size: {info.allocated} bytes")
    print(f"cluster_size: {info.cluster_size}")
    if info.backing_file is not None:
        print(f"backing file: {_shown(info.backing_file)}")
        if info.backing_format is not None:
            print(f"backing file format: {_shown(info.backing_format)}")
    _print_snapshots(info.snapshots)
    print("Format specific information:")
    specific = found["format-specific"]
    assert isinstance(specific, dict)
    for name, value in specific["data"].items():
        if name == "bitmaps":
            for bitmap in info.bitmaps:
                flags = "".join(f", {flag}" for flag, on in (("in use", bitmap.in_use), ("auto", bitmap.auto)) if on)
                print(f"    bitmap {_shown(bitmap.name)}: granularity {bitmap.granularity}{flags}")
            continue
        print(f"    {name.replace('-', ' ')}: {str(value).lower() if isinstance(value, bool) else _shown(str(value))}")
    return 0


def _print_snapshots(snapshots: Sequence[Snapshot]) -> None:
    if not snapshots:
        return
    print("Snapshot list:")
    print(f"{'ID':<8}{'TAG':<20} {'VM SIZE':>14} {'DATE':>20} {'VM CLOCK':>18} {'ICOUNT':>16}")
    for s in snapshots:
        date = datetime.fromtimestamp(s.date_s).strftime("%Y-%m-%d %H:%M:%S")
        seconds, ms = divmod(s.vm_clock_ns // 10**6, 1000)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}"
        icount = "" if s.icount is None else s.icount
        print(f"{_shown(s.id):<8}{_shown(s.name):<20} {s.vm_state_size:>14} {date:>20} {clock:>18} {icount:>16}")


def _shown(text: str) -> str:
    """A file may hold anything as a name: nothing of it may drive the terminal."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(c: str) -> str:
    if "\udc80" <= c <= "\udcff":  # a byte that is no UTF-8
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c.encode("unicode_escape").decode("ascii")


def _check(args: argparse.Namespace) -> int:
    found = left = None
    if args.repair:
        result = repair_image(args.image, leaks_only=args.repair == "leaks")
        found, left = result.found, result.left
    else:
        left = check_image(args.image)
    if args.output == "json":
        _print_json(_check_json(args.image, left, found))
    else:
        for line in (found or left).corruptions:
            print(f"ERROR {_shown(line)}")
        for line in (found or left).leaks:
            print(f"Leaked: {line}")
        if found is not None and not found.clean:
            leaks, errors = found.leak_count - left.leak_count, found.corruption_count - left.corruption_count
            print(f"Repaired: {max(leaks, 0)} leaked clusters, {max(errors, 0)} corruptions.")
        if left.clean:
            print("No errors were found on the image.")
        else:
            print(f"{left.corruption_count} errors and {left.leak_count} leaked clusters were found on the image.")
        if left.allocated_clusters:
            percent = 100 / left.allocated_clusters
            print(
                f"{left.allocated_clusters}/{left.total_clusters} = "
                f"{100 * left.allocated_clusters / max(left.total_clusters, 1):.2f}% allocated, "
                f"{percent * left.fragmented_clusters:.2f}% fragmented, "
                f"{percent * left.compressed_clusters:.2f}% compressed clusters"
            )
        print(f"Image end offset: {left.image_end}")
    if left.corruption_count:
        return 2
    return 3 if left.leak_count else 0


def _check_json(path: str, left: CheckResult, found: CheckResult | None) -> dict[str, object]:
    told: dict[str, object] = {"image-end-offset": left.image_end, "check-errors": 0, "filename": path}
    told["format"] = "qcow2"
    counts = {
        "corruptions": left.corruption_count,
        "leaks": left.leak_count,
        "total-clusters": left.total_clusters,
        "allocated-clusters": left.allocated_clusters,
        "fragmented-clusters": left.fragmented_clusters,
        "compressed-clusters": left.compressed_clusters,
    }
    told |= {name: count for name, count in counts.items() if count}
    if found is not None:
        for name, count in (
            ("corruptions-fixed", found.corruption_count - left.corruption_count),
            ("leaks-fixed", found.leak_count - left.leak_count),
        ):
            if count > 0:
                told[name] = count
    return told


def _map(args: argparse.Namespace) -> int:
    with Image.open(args.image) as image:
        extents = image.map()
        if args.output == "json":
            start = "["
            for extent in extents:
                print(start + json.dumps(extent.as_json()), end="")
                start = ",\n"
            print("]" if start != "[" else "[]")
            return 0
        print(f"{'Offset':<16}{'Length':<16}{'Mapped to':<16}Depth")
        for extent in extents:
            if extent.data and not extent.zero:
                at = "compressed" if extent.offset is None else hex(extent.offset)
                print(f"{extent.start:<#16x}{extent.length:<#16x}{at:<16}{extent.depth}")
    return 0


def _snapshot(args: argparse.Namespace) -> int:
    if args.create is args.apply is args.delete is None:
        with Image.open(args.image, backing=False) as image:
            _print_snapshots(image.snapshots)
        return 0
    with Image.open(args.image, writable=True, backing=False, barriers=True) as image:
        if args.create is not None:
            image.create_snapshot(args.create)
        elif args.apply is not None:
            image.apply_snapshot(_find(image, args.apply))
        else:
            image.delete_snapshot(_find(image, args.delete))
    return 0


def _find(image: Image, name: str) -> Snapshot:
    for attribute in ("name", "id"):
        for snapshot in image.snapshots:
            if getattr(snapshot, attribute) == name:
                return snapshot
    raise Qcow2UsageError(f"{image.path}: expected a snapshot that is there, found {name!r}")


def _create_verb(args: argparse.Namespace) -> int:
    options = _options(args.options)
    if args.backing is not None:
        options["backing_file"] = args.backing
    if args.backing_format is not None:
        options["backing_fmt"] = args.backing_format
    if args.size is not None:
        size = parse_size(args.size)
    elif "backing_file" in options:
        below = open_disk(backing_path(args.image, options["backing_file"]), options.get("backing_fmt"))
        with closing(below):
            size = below.size
    else:
        raise Qcow2UsageError("expected a size, or a backing file that has one")
    _create(args.image, size, options).close()
    return 0


@contextmanager
def _new(path: str, file: _Closing) -> Iterator[_Closing]:
    """Close ``file``; it is gone if it was not finished."""
    try:
        with closing(file):
            yield file
    except BaseException:
        os.unlink(path)
        raise


def _convert(args: argparse.Namespace) -> int:
    with closing(open_disk(args.source, args.format)) as source:
        if args.output_format == "raw":
            if args.compress or args.options:
                raise Qcow2UsageError("raw files have no options and are not compressed")
            with _new(args.target, create_raw(args.target, source.size)) as raw:
                copy_to_raw(source, raw, args.progress)
                raw.flush()
            return 0
        options = _options(args.options)
        if "backing_file" in options:
            raise Qcow2UsageError("expected no backing file of what is converted to")
        with _new(args.target, _create(args.target, source.size, options)) as image:
            copy_to_qcow2(source, image, compressed=args.compress, progress=args.progress)
    return 0


def _commit(args: argparse.Namespace) -> int:
    with Image.open(args.image, writable=True, barriers=True) as image:
        image.commit(progress=args.progress)
    print("Image committed.")
    return 0


def _rebase(args: argparse.Namespace) -> int:
    name = args.backing or None
    with Image.open(args.image, writable=True, backing=not args.unsafe, barriers=True) as image:
        kind = args.backing_format
        if name is not None and kind is None:
            kind = backing_format(image.path, backing_path(image.path, name), None)
        image.rebase(name, kind, unsafe=args.unsafe, progress=args.progress)
    return 0


def _resize(args: argparse.Namespace) -> int:
    sign, text = (args.size[0], args.size[1:]) if args.size[:1] in "+-" else ("", args.size)
    with Image.open(args.image, writable=True, barriers=True) as image:
        size = parse_size(text)
        size = image.size + size if sign == "+" else image.size - size if sign == "-" else size
        if size < image.size and not args.shrink:
            raise Qcow2UsageError("expected --shrink: the disk gets smaller and loses its end")
        image.resize(size)
    print("Image resized.")
    return 0


def _compare(args: argparse.Namespace) -> int:
    with closing(open_disk(args.image)) as a, closing(open_disk(args.other)) as b:
        if a.size != b.size and args.strict:
            print("Strict mode: Image size mismatch!")
            return 1
        at = first_difference(a, b, args.progress)
        if at is not None:
            print(f"Content mismatch at offset {at}!")
            return 1
        if a.size != b.size:
            print("Warning: Image size mismatch!")
    print("Images are identical.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m {__package__}", description="Work on qcow2 images.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace], int], text: str, *, output: bool = False) -> _Parser:
        made = verbs.add_parser(name, help=text, description=text)
        made.set_defaults(run=run, failed=2 if name == "compare" else 1, told=False)
        if output:
            made.add_argument("--output", choices=("human", "json"), default="human")
        return made

    info = verb("info", _info, "Tell what an image is.", output=True)
    checking = verb("check", _check, "Check an image: 0 clean, 1 impossible, 2 corrupt, 3 leaks.", output=True)
    checking.add_argument("-r", dest="repair", choices=("leaks", "all"))
    mapping = verb("map", _map, "Tell where the bytes of the disk are.", output=True)
    snapshot = verb("snapshot", _snapshot, "List, create, apply or delete snapshots.")
    action = snapshot.add_mutually_exclusive_group()
    action.add_argument("-l", dest="list", action="store_true")
    action.add_argument("-c", dest="create", metavar="NAME")
    action.add_argument("-a", dest="apply", metavar="NAME")
    action.add_argument("-d", dest="delete", metavar="NAME")
    create = verb("create", _create_verb, "Create an image.")
    convert = verb("convert", _convert, "Copy a disk to a new file.")
    commit = verb("commit", _commit, "Write an overlay over its backing file.")
    rebase = verb("rebase", _rebase, "Put an overlay on another backing file.")
    resize = verb("resize", _resize, "Change the size of the disk.")
    compare = verb("compare", _compare, "Compare two disks: 0 equal, 1 different, 2 impossible.")
    for one in (create, rebase):
        one.add_argument("-b", dest="backing", metavar="FILE", required=one is rebase)
        one.add_argument("-F", dest="backing_format", choices=("raw", "qcow2"))
    for one in (create, convert):
        one.add_argument("-o", dest="options", metavar="NAME=VALUE,...", default="")
    convert.add_argument("-c", dest="compress", action="store_true")
    convert.add_argument("-f", dest="format", choices=("raw", "qcow2"))
    convert.add_argument("-O", dest="output_format", choices=("raw", "qcow2"), default="raw")
    for one in (convert, commit, rebase, compare):
        one.add_argument("-p", dest="told", action="store_true", help="show the progress")
    rebase.add_argument("-u", dest="unsafe", action="store_true")
    resize.add_argument("--shrink", action="store_true")
    compare.add_argument("-s", dest="strict", action="store_true")
    for one in (info, checking, mapping, snapshot, create, commit, rebase, resize, compare):
        one.add_argument("image", metavar="IMAGE")
    create.add_argument("size", metavar="SIZE", nargs="?")
    resize.add_argument("size", metavar="[+-]SIZE")
    compare.add_argument("other", metavar="OTHER")
    convert.add_argument("source", metavar="SOURCE")
    convert.add_argument("target", metavar="TARGET")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status. Errors are one line on stderr."""
    failed = 1
    try:
        given = list(sys.argv[1:] if argv is None else argv)
        if given[:1] == ["resize"] and "--" not in given and given[-1][:1] == "-" and given[-1][1:2].isdigit():
            given.insert(-1, "--")  # a size like -1G is no option
        args = _parser().parse_args(given)
        failed = args.failed
        meter = Meter(sys.stderr) if args.told else None
        args.progress = meter or silent
        try:
            return int(args.run(args))
        finally:
            if meter is not None:
                meter.end()
    except (Qcow2Error, Qcow2UsageError) as error:
        print(f"qcow2: {_shown(str(error))}", file=sys.stderr)
    except OSError as error:
        name = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        print(f"qcow2: {_shown(name + (error.strerror or str(error)))}", file=sys.stderr)
    except KeyboardInterrupt:
        print("qcow2: interrupted", file=sys.stderr)
    return failed
