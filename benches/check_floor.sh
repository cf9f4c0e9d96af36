#!/bin/sh
# Holds the floor to its promise: a publish to N sockets makes N sendto calls, one per socket and with
# MSG_NOSIGNAL, and between the wake and the next epoll_wait the sending thread calls nothing else.
#
#   cargo build --release --example floor && benches/check_floor.sh [FLOOR]
#
# Needs strace and python3. CI runs it; it is no cargo test, because strace is not everywhere.
set -eu
floor=${1:-target/release/examples/floor}
for tool in strace python3; do
    command -v "$tool" >/dev/null || { echo "check_floor: $tool is not installed" >&2; exit 2; }
done
[ -x "$floor" ] || { echo "check_floor: no $floor; build it with: cargo build --release --example floor" >&2; exit 2; }

exec python3 - "$floor" <<'PYTHON'
import collections, json, os, re, select, signal, socket, subprocess, sys, tempfile, urllib.request

SOCKETS, MESSAGES = 50, 3
HELLO = (b"GET /ws/check HTTP/1.1\r\nHost: check\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")


def read_exactly(one, size):
    data = b""
    while len(data) < size:
        piece = one.recv(size - len(data))
        assert piece, f"the floor closed a socket after {data!r}"
        data += piece
    return data


def connect(address):
    one = socket.create_connection(address, timeout=20)
    one.sendall(HELLO)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read_exactly(one, 1)
    assert head.startswith(b"HTTP/1.1 101") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, head
    return one


def calls_of_each_publish(path):
    """Per message: the calls of the sending thread from its first send to its next epoll_wait."""
    threads = collections.defaultdict(list)
    for line in open(path):
        # "123 sendto(9, ...": a call that another thread interrupted starts or ends in two lines.
        found = re.match(r"(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed>)", line)
        if found and "resumed>" not in line[:60]:
            threads[found.group(1)].append((found.group(2), line.rstrip()))
    for calls in threads.values():
        start = next((at for at, (_, line) in enumerate(calls) if "message-0" in line and line.split()[1].startswith("sendto")), None)
        if start is not None:
            # The epoll_wait before the first send is the one that the wake ended.
            turns = [[]]
            for name, line in calls[start:]:
                if name.startswith("epoll_"):
                    turns.append([])
                else:
                    turns[-1].append((name, line))
            return calls[start - 1][0], turns
    sys.exit("check_floor: the trace has no send of the message")


with tempfile.TemporaryDirectory() as folder:
    trace = os.path.join(folder, "trace")
    server = subprocess.Popen(
        ["strace", "-f", "-qq", "-s", "64", "-o", trace, sys.argv[1], "--threads", "1",
         "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    try:
        assert select.select([server.stdout], [], [], 60)[0], "no ready line within 60 s"
        ready = re.search(r"listen=(\S+):(\d+) admin=(\S+) pid=(\d+)", server.stdout.readline())
        assert ready, "no ready line"
        clients = [connect((ready.group(1), int(ready.group(2)))) for _ in range(SOCKETS)]
        for number in range(MESSAGES):
            payload = b"message-%d" % number
            request = urllib.request.Request(f"http://{ready.group(3)}/publish/check", data=payload, method="POST")
            answer = json.load(urllib.request.urlopen(request, timeout=20))
            assert answer == {"epoch": 0, "offset": number, "subscribers": SOCKETS}, answer
            for one in clients:
                frame = read_exactly(one, 2 + len(payload))
                assert frame == bytes([0x81, len(payload)]) + payload, frame
        os.kill(int(ready.group(4)), signal.SIGTERM)
        server.wait(60)
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    before, turns = calls_of_each_publish(trace)

failures = []
if not before.startswith("epoll_"):
    failures.append(f"the call before the first send is {before}, not epoll_wait")
for number in range(MESSAGES):
    calls = turns[number] if number < len(turns) else []
    sends = [line for name, line in calls if name == "sendto"]
    others = [line for name, line in calls if name != "sendto"]
    descriptors = {re.search(r"sendto\((\d+)", line).group(1) for line in sends}
    if len(sends) != SOCKETS or len(descriptors) != SOCKETS:
        failures.append(f"message {number}: {len(sends)} sends to {len(descriptors)} sockets, not {SOCKETS}")
    if others:
        failures.append(f"message {number}: other calls: {others[:5]}")
    if not all("MSG_NOSIGNAL" in line and f"message-{number}" in line for line in sends):
        failures.append(f"message {number}: a send without MSG_NOSIGNAL, or of something else")
for failure in failures:
    print(f"check_floor: {failure}", file=sys.stderr)
if failures:
    sys.exit(1)
print(f"check_floor: ok, {MESSAGES} messages to {SOCKETS} sockets were {MESSAGES * SOCKETS} sends and nothing else")
PYTHON
