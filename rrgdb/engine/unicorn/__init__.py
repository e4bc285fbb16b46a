"""The engine on Unicorn. The native half, ``_hot``, is built when rrgdb is installed."""

import re
from importlib.util import find_spec
from pathlib import Path

UNICORN = "2.1.4"
"""the one version of Unicorn whose internals rrgdb knows"""


def _check_unicorn() -> None:
    """Raise ImportError, in one line, unless the Unicorn that Python finds, and its library, are the right ones."""
    needed = f"Unicorn {UNICORN} is needed"
    spec = find_spec("unicorn")
    if spec is None:
        raise ImportError(f"{needed}; none is installed")
    where = Path(spec.origin or "unknown place")
    try:
        import unicorn  # noqa: PLC0415
    except Exception as error:
        raise ImportError(f"{needed}; {_installed(where)} at {where} cannot be loaded: {error}") from error
    found = str(getattr(unicorn, "__version__", "an unknown version"))
    if not re.match(re.escape(UNICORN) + r"(?!\d)", found):
        raise ImportError(f"{needed}; {found} was found at {where}")
    number = unicorn.uc_version()[2]
    library = f"{number >> 24}.{number >> 16 & 0xFF}.{number >> 8 & 0xFF}"
    if library != UNICORN:
        raise ImportError(f"{needed}; the library of the one at {where} is {library}")


def _installed(where: Path) -> str:
    """The version of a package that cannot be imported, as its installer noted it."""
    from importlib.metadata import PackageNotFoundError, distribution  # noqa: PLC0415 - only where something is wrong

    try:
        found = distribution("unicorn")
    except PackageNotFoundError:
        return "one"
    return found.version if found.locate_file("unicorn/__init__.py") == where else "one"


if find_spec("rrgdb.engine.unicorn._hot") is None:
    raise ImportError(
        "rrgdb's native part is not built here: install rrgdb (pip install .) and run it as `rrgdb`, "
        "or with `python -P -m rrgdb` inside its source tree"
    )
_check_unicorn()
