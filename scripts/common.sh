# Sourced by the other scripts: what is missing from the machine, and how it gets there.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '== %s\n' "$*"; }
fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# need_packages PACKAGE...: installs with apt those that are not there; asks for nothing if all are.
need_packages() {
    local package missing=() as_root=()
    command -v dpkg-query >/dev/null || fail "this is not a Debian system; install by hand: $*"
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        say "apt: everything needed is installed"
        return
    fi
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "missing packages: ${missing[*]}; run as root or install sudo"
        as_root=(sudo)
    fi
    say "apt: installing ${missing[*]}"
    "${as_root[@]}" apt-get update -q || fail "apt-get update failed; is there a network?"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" \
        </dev/null || fail "apt-get could not install: ${missing[*]}"
}

# need_venv: makes .venv with the system's python3, which must be 3.11 or newer.
need_venv() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "python3 is $(python3 -V 2>&1 | cut -d' ' -f2), 3.11 or newer is needed"
    if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
        say "python: making the virtual environment .venv"
        python3 -m venv --clear .venv || fail "python3 -m venv failed; is python3-venv installed?"
    fi
}

# pip_install ARG...
pip_install() {
    say "pip: installing $*"
    .venv/bin/python -m pip install -q --disable-pip-version-check "$@" || fail "pip install $* failed"
}
