"""What handshakes hold that are begun and not ended, at as many as there may be: the command `half` of tls.py.

Owns the clients, in processes of their own because each has a limit on open files: each sends a ClientHello, reads what is
answered and says nothing more. What the test `handshake_memory` counts are allocations of Rust; this sees those of the
cryptography, too.
"""

import multiprocessing
import signal
import socket
import ssl
import time
import urllib.request

import pairs

# What docs/tls.md says that one takes at the most.
BYTES_MAX = 8 * 1024


def hello(context):
    """A ClientHello of its own."""
    out = ssl.MemoryBIO()
    with_memory = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    try:
        with_memory.do_handshake()
    except ssl.SSLWantReadError:
        return out.read()
    raise SystemExit("a handshake without a server")


def client(pipe, place, target, number):
    """Begins so many, tells when all are answered, and holds them until told to end.
    Each process has an address of its own, and with it ports enough."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    held = []
    try:
        for _ in range(number):
            one = socket.create_connection(target, 60, (f"127.0.1.{place + 1}", 0))
            held.append(one)
            one.sendall(hello(context))
        for one in held:
            if not one.recv(65_536):
                raise OSError("it was refused")
        pipe.send(len(held))
    except OSError as error:
        pipe.send(repr(error))
    pipe.recv()


def metric(server, name):
    with urllib.request.urlopen(f"http://{server.admin}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + " ", name + "{")))


def cmd_half(args):
    from tls import Secure, serve
    from tls_events import report
    env = {**pairs.PATIENT, "FANTAIL_LOG_LEVEL": "warn", "FANTAIL_TIMEOUTS_HANDSHAKE_SECONDS": "600",
           "FANTAIL_ADMISSION_HANDSHAKES_MAX": str(args.handshakes + 100),
           "FANTAIL_TLS_LEAN": "true" if args.sides == "lean" else "false"}
    clients = []
    with Secure(serve(args, True), env) as server:
        host, port = server.listen.rsplit(":", 1)
        empty = server.settled_bytes(5)
        for place in range(args.clients):
            ours, theirs = multiprocessing.Pipe()
            one = multiprocessing.Process(target=client, daemon=True,
                                          args=(theirs, place, (host, int(port)), args.handshakes // args.clients))
            one.start()
            theirs.close()
            clients.append((ours, one))
        try:
            said = [pipe.recv() for pipe, _ in clients]
            errors = [one for one in said if isinstance(one, str)]
            under_way = metric(server, "fantail_tls_handshakes")
            held = server.settled_bytes(5) - empty
            counted = metric(server, "fantail_inbox_bytes")
        finally:
            for pipe, one in clients:
                pipe.close()
                one.kill()
                one.join()
        pairs.wait_until(lambda: metric(server, "fantail_tls_handshakes") == 0, 60, "their ends")
        time.sleep(12)
        left = server.settled_bytes(5) - empty
    each = held / max(under_way, 1)
    rows = [["handshakes under way", f"{under_way:,.0f}"], ["MB more than before", pairs.number(held / 1e6)],
            ["bytes each", pairs.number(each)], ["of it counted as begun records", pairs.number(counted / max(under_way, 1))],
            ["MB more than before once they have left", pairs.number(left / 1e6)]]
    failures = [f"a client: {errors[0]}"] if errors else []
    if under_way < args.handshakes // args.clients * args.clients:
        failures.append("not all of them were under way")
    if each > BYTES_MAX:
        failures.append(f"one has more than {BYTES_MAX:,} bytes")
    report(f"{args.handshakes:,} handshakes that are not ended, {args.sides}, loops {args.loops}", rows, failures)
