"""The command before its modules are there: interrupts and imports that fail, as a user sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rrgdb
from rrgdb import opening
from rrgdb.engine.unicorn import UNICORN
from rrgdb.opening import GuestOptions
from rrgdb.snapshots.errors import StoreError

MODULE = ["-m", "rrgdb"]
CONSOLE_SCRIPT = ["-c", "from rrgdb.__main__ import main; main()"]
INTERRUPT = "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass\n"


def command(start: list[str], first: Path | None = None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``rrgdb replay nothing`` (or other arguments) with the modules in ``first`` before all others."""
    return subprocess.run(
        [sys.executable, "-P", *start, *(arguments or ("replay", "nothing"))],
        env={**os.environ, "PYTHONPATH": str(first or "")},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def put(directory: Path, name: str, text: str, version: str | None = None) -> None:
    (directory / name).mkdir(parents=True)
    (directory / name / "__init__.py").write_text(text)
    if version is not None:
        metadata = directory / f"{name}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize(("start", "module"), [(MODULE, "click"), (CONSOLE_SCRIPT, "unicorn"), (MODULE, "trio")])
def test_interrupt_while_modules_are_imported(tmp_path: Path, start: list[str], module: str) -> None:
    put(tmp_path, module, INTERRUPT)
    done = command(start, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_interrupts_stay_ignored_where_they_are(tmp_path: Path) -> None:
    """A shell starts what runs in the background so."""
    (tmp_path / "sitecustomize.py").write_text("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n")
    put(tmp_path, "xxhash", INTERRUPT + "raise ImportError('reached')\n")
    done = command(MODULE, tmp_path)
    assert (done.returncode, done.stderr) == (1, "rrgdb: reached\n")


def test_debug_of_the_guests_arguments_is_not_ours(tmp_path: Path) -> None:
    put(tmp_path, "xxhash", "raise ImportError('reached')\n")
    done = command(MODULE, tmp_path, "run", "x.elf", "--debug")
    assert (done.returncode, done.stderr) == (1, "rrgdb: reached\n")
    assert "Traceback" in command(MODULE, tmp_path, "--debug", "run", "x.elf").stderr


def test_interrupt_once_the_modules_are_there() -> None:
    text = (
        "import os, signal, time, rrgdb.cli.verbs.machines as machines\n"
        "machines.machine_rows = lambda _: (os.kill(os.getpid(), signal.SIGINT), time.sleep(60))\n"
        "from rrgdb.__main__ import main; main()"
    )
    done = command(["-c", text], None, "machines")
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "rrgdb: interrupted")


@pytest.mark.parametrize("error", [KeyboardInterrupt, StoreError, OSError])
def test_a_recording_that_is_not_begun_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("rrgdb.opening.live.go_live", fail)
    image = tmp_path / "image"
    image.write_bytes(bytes(16))
    with pytest.raises(error):
        opening.record(tmp_path / "r", image, GuestOptions(board="riscv64-virt", memory=1 << 20, load=0x80000000))
    assert not (tmp_path / "r").exists()


def test_interrupt_while_the_modules_of_qcow2_are_imported(tmp_path: Path) -> None:
    put(tmp_path, "argparse", "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = command(["-m", "rrgdb.qcow2"], tmp_path, "info", "nothing")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "qcow2: interrupted\n")


OTHER_UNICORNS = [
    ("__version__ = '2.0.1'\n", None, ("2.0.1 was found",)),
    ("__version__ = '2.1.40'\n", None, ("2.1.40 was found",)),
    ("", None, ("an unknown version was found",)),
    ("__version__ = '1.0.3'\ndef uc_version(): return 1, 0, 0x010003ff\n", None, ("1.0.3 was found",)),
    ("__version__ = '2.1.4'\ndef uc_version(): return 2, 1, 0x020103ff\n", None, ("the library", "is 2.1.3")),
    ("import pkg_resources_that_nobody_has\n", "2.0.1", ("2.0.1 at ", "pkg_resources_that")),
    ("raise ImportError('Failed to load\\nthe lib')\n", "2.1.4", ("2.1.4 at ", "Failed to load the lib")),
    ("raise OSError('libunicorn.so.2: wrong ELF class')\n", None, ("one at ", "wrong ELF class")),
]


@pytest.mark.parametrize(("text", "version", "said"), OTHER_UNICORNS)
def test_another_unicorn(tmp_path: Path, text: str, version: str | None, said: tuple[str, ...]) -> None:
    put(tmp_path, "unicorn", text, version)
    done = command(MODULE, tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"rrgdb: Unicorn {UNICORN} is needed; ")
    assert str(tmp_path) in done.stderr
    for words in said:
        assert words in done.stderr


def test_a_module_that_cannot_be_imported(tmp_path: Path) -> None:
    put(tmp_path, "zstandard", "raise ImportError('no\\n\\nlibrary')\n")
    done = command(CONSOLE_SCRIPT, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "rrgdb: no library\n")


def test_what_the_library_offers() -> None:
    assert set(rrgdb.__all__) <= set(dir(rrgdb))
    for name in rrgdb.__all__:
        assert getattr(rrgdb, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rrgdb.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("verb", "status", "out", "err"),
    [
        ("sys.exit(3)", 3, "said\n", ""),
        ("sys.exit(None)", 0, "said\n", ""),
        ("sys.exit('why')", 1, "said\n", "why\n"),
        ("threading.Timer(0.2, print, ['late']).start(); sys.exit(4)", 4, "said\nlate\n", ""),
        ("sys.stdout.write('unfinished'); sys.exit(5)", 5, "said\nunfinished", ""),
        ("sys.stdout.close(); sys.exit(6)", 6, "said\n", ""),
    ],
)
def test_what_was_said_is_written_before_the_end(verb: str, status: int, out: str, err: str) -> None:
    text = (
        "import os, sys, threading, rrgdb.cli.main\n"
        f"def verb():\n    print('said')\n    {verb}\n"
        "rrgdb.cli.main.main = verb\n"
        "from rrgdb.__main__ import main; main()"
    )
    done = command(["-c", text])
    assert (done.returncode, done.stdout) == (status, out)
    assert err in done.stderr
    assert bool(err) == bool(done.stderr)
