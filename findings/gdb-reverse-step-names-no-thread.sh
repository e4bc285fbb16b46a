#!/bin/bash
# gdb-multiarch 13.1-3 (Debian 12), remote protocol, a target of two threads that has ReverseStep+ and vCont.
# A guess: `reverse-stepi` of thread 2 names it, as `stepi` does: by Hc2 before the packet, since `bs` has no argument.
# Really: `stepi` sends vCont;s:2, but `reverse-stepi` sends Hc0 (any thread) and `bs`, whichever thread is selected. All that
# tells is the last Hg, which is about registers: after `thread 2` it is 2, unless gdb looked at another thread since.
# For stubs of several CPUs that can go back: take the thread of the last Hg for `bs`, or step the machine, and answer with
# the thread that did step: gdb switches to the one in the stop reply.
set -u
T=$(mktemp -d) && trap 'rm -rf "$T"' EXIT || exit 2
# unpack Debian packages with all they need into $T/r, installing nothing
debs() {
    mkdir -p "$T/deb/partial" "$T/r"; : >"$T/status"
    local O=(-qq -y -o "Dir::State::status=$T/status" -o "Dir::Cache::archives=$T/deb" -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o APT::Install-Recommends=false)
    timeout 60 apt-get "${O[@]}" --download-only install "$@" || { timeout 40 apt-get -qq update && timeout 60 apt-get "${O[@]}" --download-only install "$@"; } || return 1
    for d in "$T"/deb/*.deb; do dpkg -x "$d" "$T/r" || return 1; done
}
V=13.1-3
L=lib/x86_64-linux-gnu
debs gdb-multiarch=$V >"$T/log" 2>&1 || { echo "could not be tried: gdb-multiarch $V is not to be had"; exit 2; }
timeout 60 python3 - "$T/r" "$L" <<'PY'
import os, socket, subprocess, sys, threading

NAMES = [f"x{n}" for n in range(31)] + ["sp", "pc"]
REGISTERS = "".join(f'<reg name="{name}" bitsize="64"/>' for name in NAMES) + '<reg name="cpsr" bitsize="32"/>'
XML = (
    '<?xml version="1.0"?><target version="1.0"><architecture>aarch64</architecture>'
    f'<feature name="org.gnu.gdb.aarch64.core">{REGISTERS}</feature></target>'
)
ANSWERS = {"?": "T05thread:1;", "qC": "QC1", "qfThreadInfo": "m1,2", "qsThreadInfo": "l", "vCont?": "vCont;c;C;s;S", "D": "OK"}
seen = []


def answer(packet):
    if packet.startswith("qSupported"):
        return "PacketSize=4000;qXfer:features:read+;ReverseStep+;ReverseContinue+;vContSupported+"
    if packet.startswith("qXfer:features:read:target.xml:"):
        return "l" + XML
    if packet[0] in "HT":
        return "OK"
    if packet == "g":
        return "0" * 16 * 32 + (0x1000).to_bytes(8, "little").hex() + "00000000"
    if packet[0] == "m":
        return ("1f2003d5" * 64)[: 2 * int(packet.split(",")[1], 16)]
    if packet == "bs" or packet.startswith("vCont;"):
        return "T05thread:2;"
    return ANSWERS.get(packet, "")


def serve(listener):
    peer, _ = listener.accept()
    data = b""
    while more := peer.recv(4096):
        data += more
        while (at := data.find(b"$")) >= 0 and 0 <= (end := data.find(b"#", at)) < len(data) - 2:
            packet, data = data[at + 1 : end].decode("latin1"), data[end + 3 :]
            seen.append(packet)
            reply = answer(packet).encode()
            peer.sendall(b"+$%b#%02x" % (reply, sum(reply) & 255))


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(listener,), daemon=True).start()
root, libraries = sys.argv[1:]
commands = [
    "set architecture aarch64", f"target remote 127.0.0.1:{listener.getsockname()[1]}",
    "thread 2", "stepi", "reverse-stepi", "disconnect",
]
loader = f"{root}/{libraries}/ld-linux-x86-64.so.2"
path = f"{root}/{libraries}:{root}/usr/{libraries}"
done = subprocess.run(
    [loader, "--library-path", path, f"{root}/usr/bin/gdb-multiarch", "-nx", "-q", "-batch",
     *(word for command in commands for word in ("-ex", command))],
    capture_output=True, text=True, timeout=50, env=os.environ | {"PYTHONHOME": f"{root}/usr", "HOME": root},
)
moves = [packet for packet in seen if packet.startswith(("Hc", "vCont;", "bs", "s"))]
if not any(packet.startswith("bs") for packet in moves):
    print("could not be tried:", (done.stderr or done.stdout or "gdb said nothing").strip().splitlines()[-1])
    raise SystemExit(2)
print("observed:", " ".join(moves))
step = next((p for p in moves if p.startswith("vCont;s")), "")
named = [p for p in moves[: moves.index("bs")] if p.startswith("Hc")][-1:]
print("expected: a step that names thread 2 (vCont;s:2 and what the others do), then Hc0 and bs")
if step.startswith("vCont;s:2") and named == ["Hc0"]:
    raise SystemExit(0)
print("changed: gdb names the thread of a backward step in another way")
raise SystemExit(1)
PY
