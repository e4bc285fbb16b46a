"""What is built, and what a source distribution holds."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _files(*patterns: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)}


def test_an_extension_is_built_anew_when_one_of_its_headers_changes() -> None:
    for module in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]:
        folders = {str(Path(source).parent) for source in module["sources"]}
        included = any('#include "' in (ROOT / source).read_text() for source in module["sources"])
        assert set(module.get("depends", ())) == (_files(*(f"{f}/*.h" for f in folders)) if included else set())


def test_a_source_distribution_holds_all_headers_and_stubs() -> None:
    lines = [line.split() for line in (ROOT / "MANIFEST.in").read_text().splitlines()]
    patterns = [pattern for verb, *patterns in lines if verb == "include" for pattern in patterns]
    assert _files(*patterns) == _files("rrgdb/**/*.h", "rrgdb/**/*.pyi")
