#!/usr/bin/env python3
"""What a token adds to a handshake: CPU time of the server in interleaved runs.

    cargo build --release --bins
    benches/tokens.py                                # --fantail is target/release/fantail

HOW IT MEASURES
    A server of one loop without an issuer, and one for each kind of key, all at once and each idle but in its turn. A round
    goes through them, forwards and backwards by turns: WebSockets are upgraded one after another, each closed before the
    next, and the CPU time of the server's threads (schedstat), the kernel's part with it, is divided by their number. Tokens
    stand in `Authorization` and list two patterns; a hundred different ones come in turn.

READING THE ANSWER
    The ratio is the median over the rounds of what a kind costs and what no token costs in the same round. A row over its
    gate is marked, and the exit code is 1.

Needs openssl. Python 3.9, standard library only, Linux only.
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
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

    def __init__(self, fantail, folder, kind):
        self.fantail, self.folder, self.kind = fantail, f"{folder}/{kind}", kind
        os.mkdir(self.folder)

    def __enter__(self):
        text = ""
        if self.kind:
            source = "hmac_file" if KINDS[self.kind][0] is None else "pem_file"
            text = f'[[auth.issuer]]\n{source} = "{self.folder}/checked"\n'
            self.make_key()
        with open(f"{self.folder}/fantail.toml", "w") as file:
            file.write(text)
        command = [self.fantail, "serve", "--config", f"{self.folder}/fantail.toml", "--loops", "1"]
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
        if KINDS[self.kind][0] is None:
            with open(os.open(checked, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(SECRET)
            return
        openssl("genpkey", "-algorithm", *KINDS[self.kind][0], "-out", f"{self.folder}/key")
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fantail", default="target/release/fantail", help="the binary to measure")
    parser.add_argument("--rounds", type=int, default=9, help="runs of each server")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fantail-tokens-"))
        servers = [stack.enter_context(Server(args.fantail, folder, kind)) for kind in (None, *KINDS)]
        seen = {server.kind: [] for server in servers}
        for number in range(args.rounds):
            for server in servers if number % 2 == 0 else reversed(servers):
                seen[server.kind].append(server.handshakes(HANDSHAKES))
    bare, over = seen.pop(None), False
    print(f"without a token: {statistics.median(bare) / 1000:.1f} us a handshake")
    print("| signed by | us | times without (least .. most) | gate |")
    print("| --- | ---: | ---: | ---: |")
    for kind, costs in seen.items():
        ratios = [cost / without for cost, without in zip(costs, bare)]
        ratio, gate = statistics.median(ratios), KINDS[kind][2]
        missed = gate is not None and ratio > gate
        over |= missed
        spread = f"{ratio:.2f} ({min(ratios):.2f} .. {max(ratios):.2f}){' !' if missed else ''}"
        print(f"| {kind} | {statistics.median(costs) / 1000:.1f} | {spread} | {gate or ''} |")
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
