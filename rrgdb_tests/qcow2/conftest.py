"""QEMU's tools as judges."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


class Qemu:
    """Runs ``qemu-img`` and ``qemu-io``."""

    def img(self, *args: str | Path, codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(["qemu-img", *map(str, args)], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode in codes, (args, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def io(self, path: Path, *commands: str) -> str:
        args = [part for command in commands for part in ("-c", command)]
        done = subprocess.run(
            ["qemu-io", "-f", "qcow2", *args, str(path)], capture_output=True, text=True, check=False, timeout=60
        )
        # qemu-io reports a failed command in words only.
        assert done.returncode == 0, done.stderr
        assert "failed" not in done.stdout, done.stdout
        return done.stdout

    def check(self, path: Path, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
        return dict(json.loads(self.img("check", "--output=json", "-f", "qcow2", path, codes=codes)))

    def info(self, path: Path) -> dict[str, Any]:
        return dict(json.loads(self.img("info", "--output=json", "-f", "qcow2", path)))


@pytest.fixture(scope="session")
def qemu() -> Qemu:
    if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
        pytest.skip("needs qemu-img and qemu-io (Debian: qemu-utils)")
    return Qemu()
