"""``-serial`` and ``-chardev``: where the bytes of serial ports go to and come from."""

from __future__ import annotations

from collections.abc import Sequence

from rrgdb.cli.qemu.values import Settings, brief
from rrgdb.opening.options import OptionError

_SOCKET = {
    "wait": (("off",), "the guest does not wait for whoever connects"),
    "nodelay": (("on", "off"), "expected on or off"),
    "ipv4": (("on", "off"), "expected on or off"),
}


def backends(serials: Sequence[str], chardevs: Sequence[str]) -> list[str]:
    """The backends of the serial ports, as ``rrgdb.backends`` takes them; one port at least."""
    named = dict(map(_chardev, chardevs))
    if len(named) != len(chardevs):
        raise OptionError("-chardev: expected an id of its own for each")
    found = []
    for value in serials or ("stdio",):
        kind, _, name = value.partition(":")
        if kind == "chardev":
            if name not in named:
                raise OptionError(f"-serial {value[:60]}: expected the id of a -chardev, of its own")
            found.append(named.pop(name))
        else:
            found.append(_backend(value))
    if named:
        raise OptionError(f"-chardev id={next(iter(named))}: no -serial chardev:{next(iter(named))}")
    return found


def _backend(value: str) -> str:
    """QEMU's settings of sockets in rrgdb's words; all else is for ``rrgdb.backends`` to judge."""
    if value == "none":
        return "null"
    kind, _, rest = value.partition(":")
    where, comma, settings = rest.partition(",")
    if kind not in ("tcp", "unix") or not comma or settings == "server":
        return value
    return _socket(Settings(f"-serial {kind}:{brief(where)}", settings), f"{kind}:{where}")


def _socket(settings: Settings, where: str) -> str:
    server = settings.switch("server")
    settings.only(_SOCKET)
    settings.take("nowait")
    settings.finish(("server", "wait", "nodelay"))
    return f"{where},server" if server else where


def _chardev(value: str) -> tuple[str, str]:
    settings = Settings("-chardev", value, first="backend")
    backend, name = settings.text("backend"), settings.text("id")
    if backend == "stdio":
        mux = settings.switch("mux")
        settings.only({"signal": (("on", "off"), "expected on or off")})
        settings.finish(("id", "mux", "signal"))
        return name, "mon:stdio" if mux else "stdio"
    if backend == "file":
        path = settings.text("path")
        settings.finish(("id", "path"))
        return name, f"file:{path}"
    if backend == "socket":
        unix = settings.take("path")
        where = f"unix:{unix}" if unix is not None else f"tcp:{settings.take('host') or ''}:{settings.text('port')}"
        return name, _socket(settings, where)
    if backend in ("null", "pty"):
        settings.finish(("id",))
        return name, backend
    raise OptionError(f"-chardev {backend[:60]}: expected stdio, null, file, socket or pty")
