"""The GDB-Python file that ``rrgdb gdbinit`` prints: time travel as real gdb commands, callers of Thumb code."""

from __future__ import annotations

from rrgdb.rsp import thumb_return

_TEXT = '''\
# rrgdb: time travel as gdb commands. Load it with: source FILE (gdb 13 or newer, with Python).
import gdb

_WATCHES = (gdb.BP_WATCHPOINT, gdb.BP_HARDWARE_WATCHPOINT, gdb.BP_READ_WATCHPOINT, gdb.BP_ACCESS_WATCHPOINT)


def _quietly(command):
    """Run a gdb command that not every gdb has, or that may have nothing to show."""
    try:
        gdb.execute(command, to_string=True)
    except gdb.error:
        pass


def _show(command):
    try:
        gdb.execute(command)
    except gdb.error as error:
        gdb.write(str(error) + "\\n")


def _monitor(line):
    text = gdb.execute("monitor " + line, to_string=True)
    if text.startswith("error: "):
        raise gdb.GdbError(text[len("error: "):].rstrip())
    return text


def _refresh():
    """The guest stands elsewhere: drop what gdb remembers of it and show the frame."""
    _quietly("maintenance flush dcache")
    _quietly("maintenance flush register-cache")
    for point in gdb.breakpoints():
        if point.enabled and point.type in _WATCHES:
            # gdb reads what is watched anew. Else it takes the next hit for none if the value is the one remembered.
            _show("enable %d" % point.number)
    _show("frame")


class _Command(gdb.Command):
    def __init__(self, name, line, moves, help_text, completer=gdb.COMPLETE_NONE):
        self.__doc__ = help_text
        super().__init__(name, gdb.COMMAND_RUNNING if moves else gdb.COMMAND_STATUS, completer)
        self._line = line
        self._moves = moves

    def invoke(self, argument, from_tty):
        argument = argument.strip()
        if argument and (self._line in _NUMBERS or argument.startswith("$")):
            argument = str(int(gdb.parse_and_eval(argument)))
        if not self._moves:
            self.dont_repeat()
        text = _monitor((self._line + " " + argument).rstrip())
        if self._moves:
            lines = text.splitlines(keepends=True)
            gdb.write("".join(line for line in lines if "maintenance flush" not in line))
            _refresh()
        else:
            gdb.write(text)


class _InfoRrgdb(gdb.Command):
    """Where the guest stands in time, the recording, and its snapshots."""

    def __init__(self):
        super().__init__("info rrgdb", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        gdb.write(_monitor("info replay"))
        gdb.write(_monitor("info snapshots"))


_NUMBERS = {"back", "forward", "history"}

for _name, _line, _moves, _help in (
    ("rrgdb-when", "when", False, "Show the icount: where the guest stands in time."),
    ("rrgdb-seek", "seek", True, "Go to an icount, to `start` or `end`, or to a snapshot: rrgdb-seek WHERE"),
    ("rrgdb-back", "back", True, "Go N instructions back (1): rrgdb-back [N]"),
    ("rrgdb-forward", "forward", True, "Go N instructions forward (1): rrgdb-forward [N]"),
    ("rrgdb-history", "history", False, "Show the last N executed instructions (10): rrgdb-history [N]"),
    ("rrgdb-checkpoint", "savevm", False, "Save a snapshot here: rrgdb-checkpoint NAME"),
    ("rrgdb-restart", "loadvm", True, "Go to a snapshot: rrgdb-restart NAME"),
    ("rrgdb-delete-checkpoint", "delvm", False, "Delete a snapshot: rrgdb-delete-checkpoint NAME"),
):
    _Command(_name, _line, _moves, _help)
_InfoRrgdb()


def _called(event):
    """A call in the past is undone when it is over: memory is what it was."""
    if isinstance(event, gdb.InferiorCallPostEvent):
        _quietly("maintenance flush dcache")


gdb.events.inferior_call.connect(_called)
'''


def text() -> str:
    """The file's text; works in gdb 13.1 and newer with Python."""
    return _TEXT + thumb_return.TEXT
