#!/bin/bash
# qemu-system-arm 1:7.2+dfsg-7+deb12u18+b3 (Debian 12), -M virt: devices over `system_reset`.
# A guess: a reset of the machine resets all of its devices: UART PL011, clock PL031 and GPIO PL061 read as at power-on.
# Really: the PL061 is reset; the PL011 keeps its baud rate divisors, line control, control and interrupt mask, and the PL031
# its match register and interrupt mask.
# For firmware: set up a UART wholly, and clear RTCIMSC, before interrupts are allowed; do not take reset values as given.
# For emulators that compare themselves with QEMU: a restart is not a power-on.
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
debs qemu-system-arm=$V >"$T/log" 2>&1 || { echo "could not be tried: qemu-system-arm $V is not to be had"; exit 2; }
timeout 30 python3 - "$T" <<'PY'
import pathlib, socket, subprocess, sys
root = pathlib.Path(sys.argv[1])
lib = root / "r/lib/x86_64-linux-gnu"
path = ":".join(str(p) for p in (lib, root / "r/usr/lib/x86_64-linux-gnu", *(root / "r/usr/lib/x86_64-linux-gnu").glob("pulseaudio")))
command = [str(lib / "ld-linux-x86-64.so.2"), "--library-path", path, str(root / "r/usr/bin/qemu-system-aarch64"),
           "-M", "virt", "-S", "-display", "none", "-serial", "null", "-nodefaults", "-L", str(root / "r/usr/share/qemu"),
           "-monitor", f"unix:{root}/monitor,server=on,wait=off", "-qtest", "stdio", "-qtest-log", "/dev/null"]
try:
    qemu = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
except OSError as e:
    print("could not be tried:", e); raise SystemExit(2)


def ask(line):
    qemu.stdin.write(line + "\n"); qemu.stdin.flush()
    answer = qemu.stdout.readline().split()
    if not answer:
        print("could not be tried:", qemu.stderr.read().strip()[-200:]); raise SystemExit(2)
    return int(answer[1], 16) if len(answer) > 1 else None


REGISTERS = {"UARTIBRD": (0x09000024, 0x1234), "UARTIMSC": (0x09000038, 0x10), "RTCMR": (0x09010004, 0x55), "RTCIMSC": (0x09010010, 1),
             "GPIODIR": (0x09030400, 0xFF)}
for address, value in REGISTERS.values():
    ask(f"writel {address:#x} {value:#x}")
with socket.socket(socket.AF_UNIX) as monitor:
    monitor.connect(f"{root}/monitor")
    monitor.settimeout(10)

    def until_prompt():
        seen = b""
        while not seen.endswith(b"(qemu) "):
            seen += monitor.recv(4096)

    until_prompt()
    for line in (b"system_reset\n", b"info status\n"):
        monitor.sendall(line)
        until_prompt()
after = {name: ask(f"readl {address:#x}") for name, (address, _) in REGISTERS.items()}
qemu.kill()
print("observed:", {name: hex(value) for name, value in after.items()})
print("expected: {'UARTIBRD': '0x1234', 'UARTIMSC': '0x10', 'RTCMR': '0x55', 'RTCIMSC': '0x1', 'GPIODIR': '0x0'}")
same = after == {"UARTIBRD": 0x1234, "UARTIMSC": 0x10, "RTCMR": 0x55, "RTCIMSC": 1, "GPIODIR": 0}
print("" if same else "changed: other devices are reset", end="" if same else "\n")
raise SystemExit(0 if same else 1)
PY
