"""Compressed clusters: raw deflate with a window of 4 KiB, and zstd, as QEMU writes them."""

from __future__ import annotations

import zlib
from typing import Protocol

from .errors import Qcow2Error, Qcow2UnsupportedError
from .hostfile import Buffer

_WINDOW_BITS = -12  # raw deflate; part of the format
_MAX_ZSTD_WINDOW = 1 << 27  # zstd's own default limit


class DamagedError(Exception):
    """The bytes are not what the method makes."""


class Codec(Protocol):
    """One compression type."""

    name: str

    def compress(self, data: Buffer) -> bytes: ...

    def decompress(self, data: bytes, size: int) -> bytes:
        """At most ``size`` bytes; what follows them in ``data`` is ignored. Raises DamagedError."""


class Deflate:
    name = "deflated"

    def compress(self, data: Buffer) -> bytes:
        deflate = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, _WINDOW_BITS, 9)
        return deflate.compress(data) + deflate.flush()

    def decompress(self, data: bytes, size: int) -> bytes:
        try:
            return zlib.decompressobj(_WINDOW_BITS).decompress(data, size)
        except zlib.error as error:
            raise DamagedError(str(error)) from None


class Zstd:
    name = "zstd"

    def __init__(self) -> None:
        try:
            import zstandard  # noqa: PLC0415 - only images with zstd need it
        except ImportError:
            raise Qcow2UnsupportedError("compression type zstd needs the Python package zstandard") from None
        self._zstd = zstandard
        self._compressor = self._zstd.ZstdCompressor(write_content_size=False)

    def compress(self, data: Buffer) -> bytes:
        return self._compressor.compress(data)

    def decompress(self, data: bytes, size: int) -> bytes:
        decompressor = self._zstd.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
        try:
            with decompressor.stream_reader(data, read_across_frames=True) as reader:
                return reader.read(size)
        except self._zstd.ZstdError as error:
            raise DamagedError(" ".join(str(error).split())) from None
        except MemoryError:
            raise DamagedError("the window does not fit into memory") from None


def codec_for(compression: str) -> Codec:
    """``zlib`` or ``zstd``. Raises Qcow2UnsupportedError if the package for it is not installed."""
    return Zstd() if compression == "zstd" else Deflate()


def unpack(codec: Codec, data: bytes, size: int, path: str, offset: int) -> bytes:
    """The cluster of ``size`` bytes that was compressed to ``data``. Raises Qcow2Error."""
    try:
        cluster = codec.decompress(data, size)
    except DamagedError as error:
        raise Qcow2Error(f"{path}: offset {offset}: expected a {codec.name} cluster: {error}") from None
    if len(cluster) != size:
        raise Qcow2Error(f"{path}: offset {offset}: expected a {codec.name} cluster, found {len(cluster)} bytes")
    return cluster
