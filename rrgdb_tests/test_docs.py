"""The documentation agrees with the code: generated tables, links, and every command line that it shows."""

from __future__ import annotations

import re
import shlex
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import click
import pytest

from rrgdb.cli.main import cli
from rrgdb.cli.qemu.table import OPTIONS, Fate

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", *sorted((ROOT / "rrgdb/qcow2").glob("*.md"))]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
OPTION_SPAN = re.compile(r"--[a-z][a-z-]+(?:[ =][^-].*)?")
FOREIGN = {"--reverse", "--help"}
"""options of other programs that pages name on their own"""


@cache
def _generator() -> Any:
    loader = SourceFileLoader("gen_docs", str(ROOT / "scripts" / "gen-docs"))
    spec = spec_from_loader("gen_docs", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def _anchors(text: str) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _options(verb: str) -> dict[str, bool]:
    """Option -> whether it takes a value."""
    command = _generator().verbs()[verb]
    context = click.Context(command, info_name=verb)
    return {
        name: not parameter.is_flag and not parameter.count
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help": False, "-h": False}


def _of_qemu(verb: str) -> dict[str, bool]:
    """The same of QEMU's options, which these verbs take beside their own."""
    if verb not in ("run", "record"):
        return {}
    return {f"-{name}": bool(o.value) for o in OPTIONS if o.fate is not Fate.REFUSED for name in o.names}


def _of_scripts() -> set[str]:
    """Options that some file in scripts/ takes."""
    files = [path for path in (ROOT / "scripts").rglob("*") if path.is_file() and path.suffix in {"", ".py", ".sh"}]
    return {option for path in files for option in re.findall(r"[\"'](--[a-z-]+)[\"']", path.read_text())}


def _command_lines(text: str) -> list[str]:
    """What the page tells a user to type that begins with ``rrgdb VERB``."""
    found = list(SPAN.findall(FENCE.sub("", text)))
    for block in FENCE.findall(text):
        lines = re.sub(r"\\\n\s*", " ", block).splitlines()
        found += [line.removeprefix("$ ") for line in lines]
        found += [m[1] for line in lines if (m := re.search(r"\| (rrgdb .+)$", line))]
    lines = (re.split(r" [|>&] ?| 2>| #", line)[0] for line in found)
    return [line for line in lines if re.match(r"rrgdb [a-z]+\b", line)]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_generated_tables_are_up_to_date(page: Path) -> None:
    text = page.read_text()
    assert _generator().generate(text) == text, "run scripts/gen-docs"


def test_every_table_is_on_some_page() -> None:
    used = set(re.findall(r"<!-- generated: ([a-z0-9_-]+) -->", "".join(p.read_text() for p in PAGES)))
    assert used == set(_generator().TABLES)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_relative_links_resolve(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in _anchors(target.read_text()), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_command_lines_name_verbs_and_options_that_exist(page: Path) -> None:
    for line in _command_lines(page.read_text()):
        words = shlex.split(line, comments=True)[1:]
        verb = words.pop(0)
        if isinstance(cli.commands.get(verb), click.Group):
            verb = f"{verb} {words.pop(0)}"
        assert verb in _generator().verbs(), f"{page.name}: {line}"
        options = _of_qemu(verb) | _options(verb)
        while words and words[0].startswith("-"):
            name, _, value = words.pop(0).partition("=")
            assert name in options, f"{page.name}: {line}: {name}"
            if options[name] and not value and words:
                words.pop(0)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_options_named_alone_exist(page: Path) -> None:
    known = (
        set().union(*(_options(verb) for verb in _generator().verbs()))
        | {"--version", "--debug"}
        | FOREIGN
        | _of_scripts()
    )
    for span in SPAN.findall(FENCE.sub("", page.read_text())):
        if OPTION_SPAN.fullmatch(span):
            assert re.split("[ =]", span)[0] in known, f"{page.name}: {span}"


def test_no_page_names_a_place_on_some_machine() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(?:home|work|root|Users)/", page.read_text()), page.name


def test_tests_that_pages_name_exist() -> None:
    tests = ROOT / "rrgdb_tests"
    sources = {path.name: path.read_text() for path in (tests / "qcow2").glob("test_*.py")}
    source = ""
    for file, name in re.findall(r"`(test_\w+\.py)?(?:::)?(test_\w+)?`", (ROOT / "docs/qcow2.md").read_text()):
        source = sources[file] if file else source
        assert not name or f"def {name}(" in source, name
