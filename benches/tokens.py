#!/usr/bin/env python3
"""What a token adds to a handshake: CPU time of the server in interleaved runs; and what a flood of them does to others.

    cargo build --release --bins
    benches/tokens.py                                # --fantail is target/release/fantail
    benches/tokens.py flood                          # RS256 with keys of 4,096 bits, under a minute
    benches/tokens.py instructions                   # needs valgrind, some minutes

HOW IT MEASURES
    A server of one loop without an issuer, and two for each kind of key, all at once and each idle but in its turn: one
    computes every signature (auth.signatures_known_max = 0), as for those who come for the first time, and one has seen
    all of its tokens before. A round goes through them, forwards and backwards by turns: WebSockets are upgraded one after
    another, each closed before the next, and the CPU time of the server's threads (schedstat), the kernel's part with it,
    is divided by their number. Tokens stand in `Authorization` and list two patterns; a hundred different ones come in turn.

    The flood: processes open a WebSocket with a token and close it, as fast as they can, while others send an echo each
    20 ms over connections that they have, and time its way back.

    Instructions: those of the server in user space by callgrind, for a handshake and its end; `verify` is what of it is
    spent below the call of aws-lc-rs that checks one signature.

READING THE ANSWER
    The ratio is the median over the rounds of what a kind costs and what no token costs in the same round. A row over its
    gate is marked, and the exit code is 1; so is an echo's p99 of more than 50 ms.

Needs openssl. Python 3.9, standard library only, Linux only.
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import multiprocessing
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

SECRET = b"0123456789abcdef0123456789abcdef"
TOKENS = 100
HANDSHAKES = 500
# algorithm -> how openssl makes its key, bytes of half a signature of a curve, gate
KINDS = {
    "HS256": (None, None, 1.3),
    "ES256": (["EC", "-pkeyopt", "ec_paramgen_curve:P-256"], 32, 2.5),
    "EdDSA": (["ED25519"], None, None),
    "RS256": (["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], None, None),
    "ES384": (["EC", "-pkeyopt", "ec_paramgen_curve:P-384"], 48, None),
}
# What is flooded with, and the most that an echo may take meanwhile.
FLOOD_KEY = ["RSA", "-pkeyopt", "rsa_keygen_bits:4096"]
FLOODERS = 2
BYSTANDERS = 20
ECHO_EACH_SECONDS = 0.02
ECHO_P99_MS = 50
HEAD = (
    "GET /ws/chat/a HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n"
    "Accept-Language: en\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def halves(der, size):
    """A signature of a curve as tokens have it (RFC 7518, 3.4): two numbers of one length."""
    at, out = (2 if der[1] < 128 else 3), b""
    for _ in range(2):
        length = der[at + 1]
        out += int.from_bytes(der[at + 2 : at + 2 + length], "big").to_bytes(size, "big")
        at += 2 + length
    return out


def sign(kind, message, folder):
    if kind == "HS256":
        return hmac.new(SECRET, message, hashlib.sha256).digest()
    with open(f"{folder}/message", "wb") as file:
        file.write(message)
    if kind == "EdDSA":
        return openssl("pkeyutl", "-sign", "-inkey", f"{folder}/key", "-rawin", "-in", f"{folder}/message")
    signature = openssl("dgst", f"-sha{kind[2:]}", "-sign", f"{folder}/key", f"{folder}/message")
    size = KINDS[kind][1]
    return halves(signature, size) if size else signature


def token(kind, number, folder):
    claims = {
        "sub": f"user{number:06}",
        "exp": int(time.time()) + 3600,
        "subscribe": ["users/{sub}/**", "chat/*"],
    }
    parts = [base64url(json.dumps(part).encode()) for part in ({"alg": kind, "typ": "JWT"}, claims)]
    message = ".".join(parts)
    return f"{message}.{base64url(sign(kind, message.encode(), folder))}"


class Server:
    """A server that asks for tokens of one kind, and what its handshakes cost. Use it as a context."""

    def __init__(self, fantail, folder, kind, known=True, wrapped=(), key=None):
        self.fantail, self.folder, self.kind = fantail, f"{folder}/{kind}-{known}", kind
        self.known, self.wrapped = known, list(wrapped)
        self.key = key or (kind and KINDS[kind][0])
        os.mkdir(self.folder)

    def __enter__(self):
        text = ""
        if self.kind:
            source = "hmac_file" if self.key is None else "pem_file"
            text = "" if self.known else "[auth]\nsignatures_known_max = 0\n"
            text += f'[[auth.issuer]]\n{source} = "{self.folder}/checked"\n'
            self.make_key()
        with open(f"{self.folder}/fantail.toml", "w") as file:
            file.write(text)
        command = [*self.wrapped, self.fantail, "serve", "--config", f"{self.folder}/fantail.toml", "--loops", "1"]
        command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        ready = re.search(r"listen=127\.0\.0\.1:(\d+)", self.process.stdout.readline())
        self.address = ("127.0.0.1", int(ready.group(1)))
        tokens = [token(self.kind, number, self.folder) for number in range(TOKENS)] if self.kind else [None]
        self.heads = [HEAD + (f"Authorization: Bearer {text}\r\n\r\n" if text else "\r\n") for text in tokens]
        self.handshakes(TOKENS)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def make_key(self):
        checked = f"{self.folder}/checked"
        if self.key is None:
            with open(os.open(checked, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(SECRET)
            return
        openssl("genpkey", "-algorithm", *self.key, "-out", f"{self.folder}/key")
        openssl("pkey", "-in", f"{self.folder}/key", "-pubout", "-out", checked)

    def cpu_ns(self):
        """Of all its threads, once it has nothing left to do."""
        seen = None
        while True:
            tasks = f"/proc/{self.process.pid}/task"
            now = 0
            for task in os.listdir(tasks):
                with open(f"{tasks}/{task}/schedstat") as file:
                    now += int(file.read().split()[0])
            if now == seen:
                return now
            seen = now
            time.sleep(0.03)

    def handshakes(self, count):
        """CPU time of one, in nanoseconds, its end with it."""
        before = self.cpu_ns()
        for number in range(count):
            with socket.create_connection(self.address) as client:
                client.sendall(self.heads[number % len(self.heads)].encode())
                answer = client.recv(4096)
                if b" 101 " not in answer:
                    raise SystemExit(f"no handshake: {answer!r}")
        return (self.cpu_ns() - before) / count


def flooder(address, heads, over, done):
    """Shows tokens as fast as it can."""
    count = 0
    while not over.is_set():
        with socket.create_connection(address, 30) as client:
            client.sendall(heads[count % len(heads)])
            client.recv(4096)
        count += 1
    done.put(count)


def echoes(address, head, seconds):
    """How long echoes take, in milliseconds."""
    peers, times = [], []
    for _ in range(BYSTANDERS):
        peer = socket.create_connection(address, 30)
        peer.sendall(head)
        if b" 101 " not in peer.recv(4096):
            raise SystemExit("no bystander")
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peers.append(peer)
    # A masked text of four bytes, and the answer to it.
    frame, answer = b"\x81\x84\0\0\0\0echo", 6
    until, turn = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        peer = peers[turn % BYSTANDERS]
        began = time.monotonic()
        peer.sendall(frame)
        got = 0
        while got < answer:
            some = len(peer.recv(answer - got))
            if some == 0:
                raise SystemExit("a bystander was closed")
            got += some
        times.append((time.monotonic() - began) * 1000)
        turn += 1
        time.sleep(ECHO_EACH_SECONDS / BYSTANDERS)
    for peer in peers:
        peer.close()
    return times


def flood(args):
    over = False
    print("| flood | handshakes/s | p50 | p99 | most |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(prefix="fantail-tokens-") as folder:
        with Server(args.fantail, folder, "RS256", known=False, key=FLOOD_KEY) as server:
            good = [head.encode() for head in server.heads]
            # Another bit near the end of the signature: what is larger than the modulus would be refused at once.
            bad = [head[:-20] + (b"B" if head[-20:-19] == b"A" else b"A") + head[-19:] for head in good]
            bystander = good[0].replace(b"/ws/chat/a", b"/echo")
            for name, heads in (("none", []), ("tokens that are good", good), ("tokens that are forged", bad)):
                ended, done = multiprocessing.Event(), multiprocessing.Queue()
                count = FLOODERS if heads else 0
                processes = [
                    multiprocessing.Process(target=flooder, args=(server.address, heads, ended, done), daemon=True)
                    for _ in range(count)
                ]
                for process in processes:
                    process.start()
                began = time.monotonic()
                times = sorted(echoes(server.address, bystander, args.seconds))
                took = time.monotonic() - began
                ended.set()
                shown = sum(done.get(timeout=60) for _ in processes)
                p50, p99 = (times[int(len(times) * part)] for part in (0.5, 0.99))
                missed = p99 > ECHO_P99_MS
                over |= missed
                mark = " !" if missed else ""
                print(f"| {name} | {shown / took:.0f} | {p50:.2f} ms | {p99:.2f} ms{mark} | {times[-1]:.2f} ms |")
    sys.exit(1 if over else 0)


def instructions(args):
    """By callgrind, whose counting is switched on for the handshakes alone."""
    print("| signed by | instructions | times without a token | of them to verify |")
    print("| --- | ---: | ---: | ---: |")
    bare = None
    with tempfile.TemporaryDirectory(prefix="fantail-tokens-") as folder:
        for kind, known in ((None, True), ("HS256", True), ("ES256", False), ("ES256", True)):
            out = f"{folder}/callgrind.{kind}.{known}"
            wrapped = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--instr-atstart=no"]
            with Server(args.fantail, folder, kind, known, wrapped) as server:
                pid = str(server.process.pid)
                control = ["callgrind_control", "--instr=on", pid]
                subprocess.run(control, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                server.handshakes(HANDSHAKES)
                server.process.send_signal(signal.SIGTERM)
                server.process.wait()
            annotate = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", out]
            quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
            text = subprocess.run(annotate, check=True, **quiet).stdout
            total = int(re.search(r"([\d,]+) .*PROGRAM TOTALS", text).group(1).replace(",", "")) / HANDSHAKES
            verify = re.search(r"^\s*([\d,]+) .*EVP_DigestVerify\b(?!Init)", text, re.M)
            verify = int(verify.group(1).replace(",", "")) / HANDSHAKES if verify else 0
            bare = bare or total
            name = (kind or "nobody") + (", known" if kind == "ES256" and known else "")
            print(f"| {name} | {total:,.0f} | {total / bare:.2f} | {verify:,.0f} |")


def cost(args):
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fantail-tokens-"))
        kinds = [(None, True), *((kind, known) for kind in KINDS for known in ((True,) if kind == "HS256" else (False, True)))]
        servers = [stack.enter_context(Server(args.fantail, folder, *kind)) for kind in kinds]
        seen = {(server.kind, server.known): [] for server in servers}
        for number in range(args.rounds):
            for server in servers if number % 2 == 0 else reversed(servers):
                seen[server.kind, server.known].append(server.handshakes(HANDSHAKES))
    bare, over = seen.pop((None, True)), False
    print(f"without a token: {statistics.median(bare) / 1000:.1f} us a handshake")
    print("| signed by | us | times without (least .. most) | gate |")
    print("| --- | ---: | ---: | ---: |")
    for (kind, known), costs in seen.items():
        ratios = [cost / without for cost, without in zip(costs, bare)]
        ratio, gate = statistics.median(ratios), KINDS[kind][2]
        missed = gate is not None and ratio > gate
        over |= missed
        spread = f"{ratio:.2f} ({min(ratios):.2f} .. {max(ratios):.2f}){' !' if missed else ''}"
        name = f"{kind}, known" if known and kind != "HS256" else kind
        print(f"| {name} | {statistics.median(costs) / 1000:.1f} | {spread} | {gate or ''} |")
    sys.exit(1 if over else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["cost", "flood", "instructions"], default="cost")
    parser.add_argument("--fantail", default="target/release/fantail", help="the binary to measure")
    parser.add_argument("--rounds", type=int, default=9, help="runs of each server")
    parser.add_argument("--seconds", type=float, default=8, help="of each part of the flood")
    args = parser.parse_args()
    {"cost": cost, "flood": flood, "instructions": instructions}[args.what](args)


if __name__ == "__main__":
    main()
