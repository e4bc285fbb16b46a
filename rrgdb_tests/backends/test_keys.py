"""Keys of rrgdb's own on a serial line."""

from __future__ import annotations

from rrgdb.backends.keys import HELP, LINE_LIMIT, PROMPT, Keys, Reply


class Desk:
    """What keys came to."""

    def __init__(self) -> None:
        self.shown = ""
        self.commands: list[str] = []
        self.ends = 0
        self.reply: Reply = lambda _text: None
        self.keys = Keys(self._show)

    def _show(self, data: bytes) -> None:
        self.shown += data.decode()

    def _end(self) -> None:
        self.ends += 1

    def _command(self, line: str, reply: Reply) -> None:
        self.commands.append(line)
        self.reply = reply

    def connect(self) -> None:
        self.keys.connect(self._end, self._command)


def test_all_but_ctrl_a_is_the_guests() -> None:
    desk = Desk()
    desk.connect()
    everything = bytes(byte for byte in range(256) if byte != 1)
    assert desk.keys.feed(everything) == everything
    assert desk.keys.feed(b"a\x01") == b"a"
    assert desk.keys.feed(b"\x01b\x01") == b"\x01b"
    assert desk.keys.feed(b"zc") == b"c"  # no key of ours: dropped, as by QEMU
    assert (desk.shown, desk.ends) == ("", 0)


def test_help_and_end() -> None:
    desk = Desk()
    desk.connect()
    assert desk.keys.feed(b"\x01h\x01?\x01x") == b""
    assert (desk.shown, desk.ends) == (2 * HELP, 1)


def test_lines_for_the_monitor() -> None:
    desk = Desk()
    desk.connect()
    assert desk.keys.feed(b"x\x01cwhem\x7fn\r") == b"x"
    assert desk.commands == ["when"]
    desk.reply("icount 5\n")
    assert desk.shown == f"\r\n{PROMPT}whem\b \bn\r\nicount 5\r\n{PROMPT}"
    assert desk.keys.feed(b"half\x15\x08\r\nabc\x01cy") == b"y"
    assert desk.commands == ["when"]
    assert desk.keys.feed(b"\x01cd\n") == b""
    assert desk.commands == ["when", "d"]
    desk.keys.feed(b"\x01c")
    before = desk.shown
    desk.reply("late\n")
    assert desk.shown == before + "late\r\n"


def test_a_line_is_bounded() -> None:
    desk = Desk()
    desk.connect()
    desk.keys.feed(b"\x01c" + b"x" * 5000 + b"\r")
    assert desk.commands == ["x" * LINE_LIMIT]


def test_what_was_typed_before_anybody_was_there() -> None:
    desk = Desk()
    desk.keys.feed(b"\x01cwhen\rinfo replay\r\x01x")
    assert (desk.commands, desk.ends) == ([], 0)
    desk.connect()
    assert (desk.commands, desk.ends) == (["when", "info replay"], 1)
