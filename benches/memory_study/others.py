"""The tables of other servers: the same clients at the same steps against each, without TLS and with it."""

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import installs
import pairs
from figures import UNKNOWN, figure, fit, mean, ratio
from measure import AFTER_LEAVING_SECONDS, LISTEN, NO_CAP, PATIENT, TARGET, WORK, Failed, settled, user_bytes
from installs import SCRIPTS
from sampling import Row, sample

START_SECONDS = 30
# Everybody's steps. Over TLS each is so dear that a table of more would not fit many machines.
STEPS_MOST, TLS_STEPS_MOST = 5_000, 2_000


class Launched:
    """A server that is told its port and says nothing; it is ready when it accepts. Use it as a context."""

    def __init__(self, line, env=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.listen = f"127.0.0.1:{self.port}"
        # Several run at once.
        self.folder = WORK / "launched" / str(self.port)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = open(self.folder / "log", "w")
        self.process = subprocess.Popen([str(part) for part in line(self)], env={**os.environ, **(env or {})},
                                        stdout=self.log, stderr=self.log)
        self.pid = self.process.pid

    def __enter__(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.1)
        self.__exit__()
        raise Failed(f"no server: {(self.folder / 'log').read_text()[-500:]}")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.log.close()

    def user_bytes(self):
        return user_bytes(self.pid)


class Behind:
    """Two servers, one in front of the other: clients see the first, memory is that of both. Use it as a context."""

    def __init__(self, start_back, start_front):
        self.start_back, self.start_front, self.stack = start_back, start_front, ExitStack()

    def __enter__(self):
        with ExitStack() as stack:
            back = stack.enter_context(self.start_back())
            front = stack.enter_context(self.start_front(back))
            self.listen = front.listen
            self.user_bytes = lambda: front.user_bytes() + back.user_bytes()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *why):
        return self.stack.__exit__(*why)


def filled(name, server, **more):
    """A configuration with its `{names}` filled in, in the server's own folder."""
    text = (SCRIPTS / name).read_text()
    for key, value in {"port": server.port, "folder": server.folder, **more}.items():
        text = text.replace(f"{{{key}}}", str(value))
    path = server.folder / "nginx.conf"
    path.write_text(text)
    return path


# Each of these installs a server and tells its version and how to launch it, with TLS if there are `files`.

def nchan(files):
    folder, version = installs.debian("libnginx-mod-nchan", "nginx", "nginx-common")
    module = next(folder.rglob("ngx_nchan_module.so"))
    tls = "ssl" if files else ""
    lines = f"ssl_certificate {files[0]}; ssl_certificate_key {files[1]};" if files else ""

    def line(server):
        config = filled("nchan.conf", server, module=module, ssl=tls, certificate=lines)
        return [folder / "usr/sbin/nginx", "-p", server.folder, "-c", config]

    return installs.upstream(version), lambda: Launched(line)


def node(files, deflate=False):
    modules, version = installs.npm("ws")
    env = {"WS_MODULE": (modules / "ws" / "wrapper.mjs").as_uri(), "WS_DEFLATE": "1" if deflate else "0"}
    runtime = installs.run("node", "--version").strip().removeprefix("v")
    return f"{version}, Node {runtime}", lambda: Launched(lambda server: ["node", SCRIPTS / "ws.mjs", server.port, *files], env)


def bun(files):
    modules, version = installs.npm("bun")
    return version, lambda: Launched(lambda server: [modules / ".bin" / "bun", SCRIPTS / "bun.mjs", server.port, *files])


def python(package, files):
    interpreter, version = installs.pip(package)
    runtime = installs.run(interpreter, "--version").split()[1]
    script = SCRIPTS / f"{package}_server.py"
    return f"{version}, Python {runtime}", lambda: Launched(lambda server: [interpreter, script, server.port, *files])


def go(files):
    program, version = installs.go()
    return version, lambda: Launched(lambda server: [program, server.port, *files])


def java(files):
    path, version = installs.java()
    return version, lambda: Launched(lambda server: ["java", "-cp", path, "Broadcast", server.port, server.folder, *files])


def tungstenite(files, read_buffer=None):
    program, version = installs.tungstenite()
    env = {"READ_BUFFER_BYTES": str(read_buffer)} if read_buffer else {}
    return version, lambda: Launched(lambda server: [program, server.port, *files], env)


def fantail(bench, env):
    """As it comes, but with the clients' patience and, perhaps, without the cap by address."""
    line = f"{bench.fantail} serve {LISTEN}"
    return "this one", lambda: pairs.Server(line, {**PATIENT, **env})


def secure(bench, files, lean):
    """The same on its port of TLS, with rustls behind the handshake or as plain data."""
    def line(server):
        return [bench.fantail, "serve", *LISTEN.split(), "--tls-listen", f"127.0.0.1:{server.port}",
                "--tls-certificate", files[0], "--tls-key", files[1]]

    return "this one", lambda: Launched(line, {**PATIENT, "FANTAIL_TLS_LEAN": "true" if lean else "false"})


def floor(bench):
    program = TARGET / "release/examples/floor"
    if not program.exists():
        raise Failed(f"no {program}")
    return "this one", lambda: pairs.Server(f"{program} {LISTEN} --threads {os.cpu_count()}", {})


def fronted(bench, files):
    """nginx ends TLS and hands on to Fantail, as packaging/proxies/nginx.conf has it."""
    folder, version = installs.debian("libnginx-mod-nchan", "nginx", "nginx-common")
    # All clients have the proxy's address then, unless it is trusted to tell theirs.
    _, back = fantail(bench, NO_CAP)

    def front(server):
        def line(proxy):
            config = filled("front.conf", proxy, certificate=files[0], key=files[1], backend=server.listen)
            return [folder / "usr/sbin/nginx", "-p", proxy.folder, "-c", config]

        return Launched(line)

    own = installs.run("dpkg-deb", "-f", next((folder.parent).glob("nginx_*.deb")), "Version").strip()
    return f"nginx {installs.upstream(own)}", lambda: Behind(back, front)


BASE = "Fantail"
# Everybody is divided by it, so it is to be the surest.
BASE_TIMES = 3
# Roughly, so that not too many of them are under way at once.
DEAR_BYTES = {"Rust tokio-tungstenite": 150_000, "Java Tomcat": 80_000}
TLS_DEAR_BYTES = {"Rust tokio-tungstenite with rustls": 160_000, "Java Tomcat": 230_000, "Python websockets": 300_000,
                  "Python aiohttp": 300_000}
# What it is, who subscribes to what, how to install and launch it, and the clients' peculiarities.
PLAIN = [
    (BASE, "1 topic", lambda bench: fantail(bench, {}), {}),
    ("Fantail, cap by address off", "1 topic", lambda bench: fantail(bench, NO_CAP), {}),
    ("the bare loop of benches/floor.rs", "none", floor, {}),
    ("nginx with nchan", "1 channel", lambda _: nchan(()), {}),
    ("Bun", "1 topic", lambda _: bun(()), {}),
    ("Rust tokio-tungstenite", "a broadcast channel", lambda _: tungstenite(()), {}),
    ("Rust tokio-tungstenite, 4 KiB buffer", "a broadcast channel", lambda _: tungstenite((), 4_096), {}),
    ("Go gorilla/websocket", "in a map", lambda _: go(()), {}),
    ("Java Tomcat", "in a Set", lambda _: java(()), {}),
    ("npm ws", "in a Set", lambda _: node(()), {}),
    ("npm ws, deflate negotiated", "in a Set", lambda _: node((), deflate=True), {"deflate": True}),
    ("Python websockets", "in a set", lambda _: python("websockets", ()), {}),
    ("Python aiohttp", "in a set", lambda _: python("aiohttp", ()), {}),
]
TLS_BASE = "Fantail"
TLS = [
    (TLS_BASE, "1 topic", lambda bench, files: secure(bench, files, lean=False), {}),
    ("Fantail, `tls.lean`", "1 topic", lambda bench, files: secure(bench, files, lean=True), {}),
    ("Fantail behind nginx, both processes", "1 topic", fronted, {}),
    ("nginx with nchan", "1 channel", lambda _, files: nchan(files), {}),
    ("Bun", "1 topic", lambda _, files: bun(files), {}),
    ("Rust tokio-tungstenite with rustls", "a broadcast channel", lambda _, files: tungstenite(files), {}),
    ("Rust tokio-tungstenite with rustls, 4 KiB buffer", "a broadcast channel", lambda _, files: tungstenite(files, 4_096), {}),
    ("Go gorilla/websocket", "in a map", lambda _, files: go(files), {}),
    ("Java Tomcat", "in a Set", lambda _, files: java(files), {}),
    ("npm ws", "in a Set", lambda _, files: node(files), {}),
    ("Python websockets", "in a set", lambda _, files: python("websockets", files), {}),
    ("Python aiohttp", "in a set", lambda _, files: python("aiohttp", files), {}),
]


def others(bench):
    """User memory of idle connections to Fantail, to the bare loop, and to others."""
    steps = bench.steps(STEPS_MOST)
    return compared(bench, "others", PLAIN, steps, BASE, DEAR_BYTES, lambda install: install(bench))


def tls(bench):
    """The same over TLS."""
    files, steps = installs.certificate(), bench.steps(TLS_STEPS_MOST)
    known = [(name, who, install, {**clients, "tls": True}) for name, who, install, clients in TLS]
    return compared(bench, "tls", known, steps, TLS_BASE, TLS_DEAR_BYTES, lambda install: install(bench, files))


def compared(bench, table, servers, steps, base, dear, start):
    rows, versions = [], {}
    for name, _, install, clients in servers:
        if bench.only and name not in bench.only:
            continue
        try:
            versions[name], launch = start(install)
        except (Failed, OSError) as error:
            print(f"  n/a: {name}: {error}", file=sys.stderr)
            continue
        rows.append(Row(name, idle(launch, clients), steps, BASE_TIMES if name == base else 1, dear.get(name, 0)))
    samples = sample(bench, table, rows)
    measured = {name: of_server(samples, name, who, versions.get(name, "n/a")) for name, who, _, _ in servers
                if not bench.only or name in bench.only}
    found = {name: measured.get(name) or bench.known[table][name] for name, _, _, _ in servers}
    for name, row in found.items():
        row["times"] = figure(1.0) if name == base else ratio(row["user"], found[base]["user"])
    return found, samples.about()


def idle(launch, clients):
    """A probe: connections come, are left alone, and leave."""
    def probe(connections, _):
        with launch() as server, pairs.Holders(server, "/ws/study", **clients) as holders:
            found = {}
            found["empty"] = settled(server.user_bytes, found)
            holders.open(connections)
            found["open"] = settled(server.user_bytes, found)
            holders.all("leave", 1.0, 1)
            time.sleep(AFTER_LEAVING_SECONDS)
            found["left"] = settled(server.user_bytes, found)
            return found

    return probe


def of_server(samples, name, subscribed, version):
    points = samples.points(name, "open")
    if len(points) < 3:
        return {"version": "n/a", "subscribed": subscribed, "empty": UNKNOWN, "user": UNKNOWN, "kept": UNKNOWN}
    return {"version": version, "subscribed": subscribed, "empty": mean(samples.values(name, "empty")), "user": fit(points),
            "kept": fit(samples.points(name, "left", "empty"))}
