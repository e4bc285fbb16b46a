"""The package can be lifted out: nothing of rrgdb is in it, and it works under another name."""

from __future__ import annotations

import ast
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

from rrgdb import qcow2
from rrgdb.qcow2 import check_image

PACKAGE = Path(qcow2.__file__).parent
ALLOWED = {"numpy", "zstandard"} | sys.stdlib_module_names


def test_imports() -> None:
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                assert not isinstance(node, ast.ImportFrom) or node.level == 1, path
                continue
            assert {name.partition(".")[0] for name in names} <= ALLOWED, path


def test_under_another_name(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "lib" / "disks")
    for arguments in (["--help"], ["create", "a", "1M"], ["snapshot", "-c", "s", "a"], ["check", "a"]):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "disks", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path / "lib")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "rrgdb" not in done.stdout
    assert check_image(tmp_path / "a").clean
    assert "No errors" in done.stdout


def test_the_readme_names_every_module() -> None:
    text = (PACKAGE / "README.md").read_text()
    assert not [path.stem for path in PACKAGE.glob("[!_]*.py") if f"`{path.stem}`" not in text]


def test_the_reference_has_every_public_name() -> None:
    text = (PACKAGE / "API.md").read_text()
    assert not [name for name in qcow2.__all__ if f"\n## {name}\n" not in text]
    members = [
        f"{name}.{member}"
        for name in qcow2.__all__
        for member, value in vars(getattr(qcow2, name)).items()
        if not member.startswith("_") and (isinstance(value, property | classmethod) or inspect.isfunction(value))
    ]
    assert "Image.writable" in members
    assert not [member for member in members if f"\n### {member}\n" not in text]


def test_its_users_see_its_types(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "lib" / "disks")
    (tmp_path / "use.py").write_text("from disks import Image\n\nreveal_type(Image.open('a').snapshots)\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "use.py"],
        cwd=tmp_path,
        env={"MYPYPATH": "", "PYTHONPATH": str(tmp_path / "lib")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "disks.snapshot_table.Snapshot" in done.stdout, done.stdout + done.stderr
