"""What happens to those who are served over TLS while others come: the commands `storm` and `swap` of tls.py.

Owns the clients of `swap`, which shake hands, look at the certificate and leave: OpenSSL's, in processes of their own, so
that Python does not wait for itself.
"""

import bisect
import contextlib
import multiprocessing
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pairs

ECHO_P99_MS_MAX = 50.0


def shake(target, context):
    """One handshake in full, and who it was with."""
    with socket.create_connection(target, 20) as plain, context.wrap_socket(plain) as secure:
        return secure.getpeercert(binary_form=True)


def trusting():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def worker(pipe, target, rate):
    """Shakes hands `rate` times a second until told to end; then tells of each when it began, when it ended, and the
    certificate, or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    context, done, errors = trusting(), [], []
    pipe.send("ready")
    pipe.recv()
    begun = time.monotonic()
    while not pipe.poll():
        time.sleep(max(0, begun + (len(done) + len(errors)) / rate - time.monotonic()))
        at = time.monotonic()
        try:
            certificate = shake(target, context)
        except OSError as error:
            errors.append(repr(error))
            continue
        done.append((at, time.monotonic(), certificate))
    pipe.send((done, errors))


class Workers:
    """Processes that shake hands. Use it as a context."""

    def __init__(self, server, number, rate):
        host, port = server.listen.rsplit(":", 1)
        self.all = []
        for _ in range(number):
            ours, theirs = multiprocessing.Pipe()
            one = multiprocessing.Process(target=worker, args=(theirs, (host, int(port)), rate / number), daemon=True)
            one.start()
            theirs.close()
            self.all.append((ours, one))
        for pipe, _ in self.all:
            pipe.recv()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pipe, one in self.all:
            pipe.close()
            one.kill()
            one.join()

    def tell(self, word):
        for pipe, _ in self.all:
            pipe.send(word)

    def results(self):
        done, errors = [], []
        for pipe, _ in self.all:
            part = pipe.recv()
            done += part[0]
            errors += part[1]
        return sorted(done), errors


def realtime(pid, priority):
    for task in os.listdir(f"/proc/{pid}/task"):
        # A thread of the start may end in between.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setscheduler(int(task), os.SCHED_RR, os.sched_param(priority))


def report(title, rows, failures):
    print(f"\n### {title}\n")
    pairs.print_markdown(["figure", "value"], rows)
    for failure in failures:
        print(f"FAILED: {failure}")
    if failures:
        sys.exit(1)


def cmd_storm(args):
    """The storm's clients shake hands in full and upgrade, as many at once as the generator has under way (256 a thread),
    and stay until all are there; then they leave. What is measured are echoes while it lasts, and no longer."""
    from tls import side
    with side(args.sides, args) as server:
        if args.realtime:
            realtime(server.pid, 2)
        before = pairs.tcp_in_use()
        with pairs.start_loadtest(args, "echo", server, path="/echo", connections=args.served, threads=1, rate=args.rate,
                                  size=128, duration=f"{args.seconds}s") as echo:
            pairs.wait_until(lambda: pairs.tcp_in_use() - before >= 2 * args.served, 60, "those who are served")
            if args.realtime:
                realtime(echo.process.pid, 3)
            cpu, begun = server.cpu_ns(), time.monotonic()
            with pairs.start_loadtest(args, "idle", server, connections=args.handshakes, threads=args.threads,
                                      duration="100ms") as storm:
                result = echo.result()
                echoed = time.monotonic() - begun
                storm = storm.result()
            cpu = server.cpu_ns() - cpu
    latency, came = pairs.figures(result, pairs.ECHO_FIELDS), storm["connections"]
    rows = [[name, pairs.number(value)] for name, value in latency.items()]
    rows += [["handshakes", f"{came['opened']:,}"], ["a second", f"{came['opened_per_second']:,.0f}"],
             ["p99 of a connect, ms", pairs.number(came["connect_latency"]["p99_microseconds"] / 1e3)],
             ["resumed", f"{storm['tls']['resumed']}"],
             ["the storm's seconds, and the echoes'", f"{came['open_seconds']:.1f}, {echoed:.1f}"],
             ["server CPU, s", f"{cpu / 1e9:.2f}"]]
    failures = []
    if came["opened"] != args.handshakes:
        failures.append(f"{args.handshakes - came['opened']} handshakes failed")
    if latency["echo p99 ms"] > ECHO_P99_MS_MAX:
        failures.append(f"echo p99 is above {ECHO_P99_MS_MAX:g} ms")
    if latency["echo lost"]:
        failures.append("echoes were lost")
    if came["open_seconds"] < args.seconds:
        failures.append("the storm was over before the echoes were: more --handshakes or fewer --seconds")
    report(f"{args.handshakes:,} handshakes beside {args.served:,} clients that are served", rows, failures)


class Certificates:
    """Certificates of its own, each as files that the next replace."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.files = [self.folder / "certificate.pem", self.folder / "key.pem"]
        subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.files[1]], check=True)

    def make(self, serial):
        """One more of the same key; its DER."""
        fresh = self.folder / f"{serial}.pem"
        subprocess.run(["openssl", "req", "-x509", "-key", self.files[1], "-days", "30", "-set_serial", str(serial),
                        "-subj", f"/CN=number {serial}", "-addext", "subjectAltName=IP:127.0.0.1", "-out", fresh], check=True)
        return fresh, ssl.PEM_cert_to_DER_cert(fresh.read_text())

    def put(self, fresh):
        fresh.rename(self.files[0])


def cmd_swap(args):
    """Each swap is complete when POST /reload has answered: a handshake that begins after that gets the new one."""
    from tls import LISTEN, Secure
    with tempfile.TemporaryDirectory() as folder:
        own = Certificates(folder)
        made = [own.make(number + 1) for number in range(args.swaps + 1)]
        own.put(made[0][0])
        line = (f"{args.fantail} serve {LISTEN} --loops {args.loops} --tls-listen 127.0.0.1:0 "
                f"--tls-certificate {own.files[0]} --tls-key {own.files[1]}")
        env = {**pairs.PATIENT, "FANTAIL_LOG_LEVEL": "warn", "FANTAIL_TLS_LEAN": "true" if args.sides == "lean" else "false"}
        with Secure(line, env) as server, pairs.Holders(server, "/ws/swap", tls=True) as holders:
            holders.open(args.served)
            with Workers(server, args.workers, args.rate) as workers:
                workers.tell("go")
                # When each may first be met, and when it must be.
                may, must = [0.0], [time.monotonic()]
                for fresh, _ in made[1:]:
                    may.append(time.monotonic())
                    own.put(fresh)
                    reload(server)
                    must.append(time.monotonic())
                    time.sleep(10 / args.rate)
                workers.tell("end")
                done, errors = workers.results()
            server.publish("swap", b"are you there")
            alive = holders.all("read", 2.0, b"are you there")
    numbers = {der: number for number, (_, der) in enumerate(made)}
    wrong = 0
    for begun, ended, der in done:
        number, least = numbers.get(der, -1), bisect.bisect_right(must, begun) - 1
        wrong += not (number >= least and may[number] <= ended)
    rows = [["swaps", f"{args.swaps}"], ["handshakes", f"{len(done):,}"],
            ["a second", f"{len(done) / (done[-1][1] - done[0][0]):,.0f}"],
            ["certificates met", f"{len({der for _, _, der in done})}"],
            ["ms a swap, median", f"{1e3 * sorted(b - a for a, b in zip(may[1:], must[1:]))[args.swaps // 2]:.1f}"],
            ["still there", f"{alive:,} of {args.served:,}"]]
    failures = [f"{len(errors)} handshakes failed, {errors[0]}"] if errors else []
    if wrong:
        failures.append(f"{wrong} handshakes met a certificate that was not in force")
    if alive != args.served:
        failures.append("some were dropped")
    report(f"{args.swaps} certificates under {args.served:,} connections", rows, failures)


def reload(server):
    import urllib.request
    request = urllib.request.Request(f"http://{server.admin}/reload", data=b"", method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        answer.read()
