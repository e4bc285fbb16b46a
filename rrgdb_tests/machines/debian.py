"""Debian's packages for the tests, by name, for any architecture: fetched when they are needed and unpacked in a cache.

apt does it, with lists and downloads of its own in the cache (``RRGDB_CACHE`` or ``~/.cache/rrgdb-tests``), so the
machine's packages and architectures stay as they are and nobody needs to be root. A package that is in the cache is
used as it is; remove the cache for newer ones.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

NEXT_SUITE = {"bookworm": "trixie", "trixie": "forky"}
FIRST_SUITES = {"riscv64": "trixie"}
"""architectures that are no part of the suites before this one"""
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
PATIENCE = 600


class Unavailable(Exception):
    """The package cannot be had; the text names it and says why."""


@dataclass(frozen=True)
class Source:
    """Where this machine's own packages come from."""

    uri: str
    suite: str


def cache() -> Path:
    return Path(os.environ.get("RRGDB_CACHE") or Path.home() / ".cache" / "rrgdb-tests")


def unpacked(package: str, arch: str) -> Path:
    """The directory that Debian's ``package`` for ``arch`` (Debian's name; "all": for any) is unpacked in.

    A package without files of its own is followed to the one that it stands for, as kernels' are. Raises Unavailable.
    """
    if arch == "all":
        arch = _run(["dpkg", "--print-architecture"]).strip()
    target = cache() / "packages" / f"{package}_{arch}"
    with _locked(arch):
        if not target.exists():
            _fetch(package, arch, target)
    return target


@contextmanager
def _locked(arch: str) -> Iterator[None]:
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{arch}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(package: str, arch: str, target: Path) -> None:
    try:
        own = _own_source()
        suite = own.suite
        if arch in FIRST_SUITES and suite in NEXT_SUITE and suite != FIRST_SUITES[arch]:
            suite = NEXT_SUITE[suite]
        options = _apt_of_its_own(own.uri, suite, arch)
        real = _stands_for(package, options)
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent) as scratch:
            _run(["apt-get", *options, "download", real], cwd=Path(scratch))
            (archive,) = Path(scratch).glob("*.deb")
            files = Path(scratch) / "files"
            _run(["dpkg", "-x", str(archive), str(files)])
            files.replace(target)
    except (OSError, subprocess.SubprocessError, Unavailable) as e:
        said = (getattr(e, "stderr", "") or str(e)).strip().splitlines() or [type(e).__name__]
        raise Unavailable(f"Debian's package {package} for {arch}: {said[-1]}") from None


def _own_source() -> Source:
    """The archive that the machine's own packages come from."""
    release = Path("/etc/os-release").read_text()
    named = re.search(r'^VERSION_CODENAME="?(\w+)', release, re.MULTILINE)
    if re.search(r'^ID="?debian"?$', release, re.MULTILINE) is None or named is None:
        raise Unavailable("this is not a Debian release")
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    for line in _run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"]).splitlines():
        uri, suite, component = line.split()
        if (suite, component) == (named[1], "main"):
            return Source(uri, suite)
    raise Unavailable(f"apt has no source for {named[1]}")


def _apt_of_its_own(uri: str, suite: str, arch: str) -> Sequence[str]:
    """Options for apt that make it work in the cache alone; its lists are there afterwards."""
    place = cache() / "apt" / f"{suite}-{arch}"
    for name in ("state/lists/partial", "cache/archives/partial", "preferences.d", "trusted.gpg.d"):
        (place / name).mkdir(parents=True, exist_ok=True)
    (place / "state/status").touch()
    sources = place / "sources.list"
    sources.write_text(f"deb [arch={arch} signed-by={KEYS}] {uri} {suite} main\n")
    settings = {
        "Dir::Etc": place,
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State": place / "state",
        "Dir::State::status": place / "state/status",
        "Dir::Cache": place / "cache",
        "APT::Architecture": arch,
        "APT::Architectures": arch,
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": 3,
    }
    options = ["-q", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
    if not (place / "fresh").exists():
        _run(["apt-get", *options, "-o", "APT::Update::Error-Mode=any", "update"])
        (place / "fresh").touch()
    return options


def _stands_for(package: str, options: Sequence[str]) -> str:
    """``linux-image-ARCH`` is empty and depends on the kernel of the day."""
    if not package.startswith("linux-image-"):
        return package
    told = _run(["apt-cache", *options, "show", "--no-all-versions", package])
    depends = re.search(r"^Depends: (linux-image-\S+)", told, re.MULTILINE)
    return depends[1] if depends else package


def _run(command: Sequence[str], cwd: Path | None = None) -> str:
    if shutil.which(command[0]) is None:
        raise Unavailable(f"{command[0]} is not installed")
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
        timeout=PATIENCE,
        env={**os.environ, "LC_ALL": "C"},
    )
    return done.stdout
