#!/bin/bash
# qemu-system-misc 1:7.2+dfsg-7+deb12u18+b3 (Debian 12): an Intel HEX file on a 64-bit CPU (-device loader,file=…,cpu-num=0).
# A guess: the 32 bits of a start linear address (record type 05) are where the CPU starts.
# Really: QEMU extends their sign. On riscv64's `virt`, where all RAM lies from 0x80000000 on, a file that names its start there
# leaves pc at 0xffffffff8…; one with a start below 0x80000000 does as it says. The contents are loaded where they belong.
# For firmware: give riscv64 an ELF file, or name the start by hand (-device loader,addr=…,cpu-num=0).
# For whoever reads the format: its addresses are unsigned, also where the CPU has 64 bits.
set -u
T=$(mktemp -d) && trap 'rm -rf "$T"' EXIT || exit 2
# unpack Debian packages with all they need into $T/r, installing nothing
debs() {
    mkdir -p "$T/deb/partial" "$T/r"; : >"$T/status"
    local O=(-qq -y -o "Dir::State::status=$T/status" -o "Dir::Cache::archives=$T/deb" -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o APT::Install-Recommends=false)
    timeout 80 apt-get "${O[@]}" --download-only install "$@" || return 1
    for d in "$T"/deb/*.deb; do dpkg -x "$d" "$T/r" || return 1; done
}
V=1:7.2+dfsg-7+deb12u18+b3
debs qemu-system-misc=$V >"$T/log" 2>&1 || { echo "could not be tried: qemu-system-misc $V is not to be had"; exit 2; }
timeout 30 python3 - "$T" <<'PY'
import pathlib, re, subprocess, sys
root = pathlib.Path(sys.argv[1])
lib = root / "r/lib/x86_64-linux-gnu"
path = ":".join(str(p) for p in (lib, root / "r/usr/lib/x86_64-linux-gnu", *(root / "r/usr/lib/x86_64-linux-gnu").glob("pulseaudio")))


def record(kind, address, data):
    line = bytes([len(data), address >> 8, address & 255, kind]) + data
    return ":" + (line + bytes([-sum(line) & 255])).hex().upper()


def observe(start):
    """(pc, the first word at the address that the file names)"""
    lines = [record(4, 0, (start >> 16).to_bytes(2, "big")), record(0, start & 0xFFFF, bytes.fromhex("6f000000")),
             record(5, 0, start.to_bytes(4, "big")), record(1, 0, b"")]
    (root / "a.hex").write_text("\n".join(lines) + "\n")
    command = [str(lib / "ld-linux-x86-64.so.2"), "--library-path", path, str(root / "r/usr/bin/qemu-system-riscv64"),
               "-M", "virt", "-bios", "none", "-S", "-display", "none", "-serial", "null", "-L", str(root / "r/usr/share/qemu"),
               "-monitor", "stdio", "-device", f"loader,file={root}/a.hex,cpu-num=0"]
    try:
        done = subprocess.run(command, input=f"info registers\nxp /1xw {start:#x}\nquit\n", capture_output=True, text=True, timeout=12)
    except OSError as e:
        print("could not be tried:", e); raise SystemExit(2)
    pc = re.search(r"\bpc +([0-9a-f]+)", done.stdout)
    word = re.search(rf"{start:016x}: (0x[0-9a-f]+)", done.stdout)
    if not pc or not word:
        print("could not be tried:", done.stderr.strip()[-200:]); raise SystemExit(2)
    return hex(int(pc[1], 16)), word[1]


seen = observe(0x80001000)
print("observed:", seen)
print("expected: ('0xffffffff80001000', '0x0000006f')")
same = seen == ("0xffffffff80001000", "0x0000006f")
print("" if same else "changed: the CPU starts elsewhere", end="" if same else "\n")
raise SystemExit(0 if same else 1)
PY
