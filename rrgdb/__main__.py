"""The ``rrgdb`` command, and ``python -m rrgdb``.

What it needs takes a good part of a second to import. So nothing is imported here before that can fail, or be
interrupted, in one line.
"""

import os
import sys
from itertools import takewhile

from rrgdb.cli.early import INTERRUPTED, alone, importing


def main() -> None:
    """Entry point: see ``rrgdb.cli.main.main``."""
    # Or numpy's library for linear algebra, which nothing here uses, starts a thread for each CPU: half of the time
    # that numpy takes to import.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    alone()
    try:
        with importing():
            from rrgdb.cli.main import main as command_line  # noqa: PLC0415 - see above
        command_line()
    except ImportError as error:
        # Of rrgdb itself, before the verb: behind it are the guest's arguments as well.
        if "--debug" in takewhile(lambda word: word.startswith("-"), sys.argv[1:]):
            raise
        print(f"rrgdb: {' '.join(str(error).split())[:400]}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        _leave(end.code)
        raise


def _leave(status: object) -> None:
    """End the process, if nothing is left to do: what a verb has opened is closed by now, and to take its modules apart
    Python needs another 15 ms. Returns if Python itself has to say something, or to wait for a thread."""
    threads = sys.modules.get("threading")
    if threads is None or any(not t.daemon for t in threads.enumerate() if t is not threads.main_thread()):
        return
    if status is None or isinstance(status, int):
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            return
        os._exit(status or 0)


if __name__ == "__main__":
    main()
