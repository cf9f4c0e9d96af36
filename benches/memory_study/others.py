"""The table of other servers: the same command of the load generator against each."""

import os
import socket
import subprocess
import sys
import time

import installs
import pairs
from measure import BENCHES, LISTEN, TARGET, UNKNOWN, WORK, Failed, figure, user

SCRIPTS = BENCHES / "others"


class Launched:
    """A server that is told its port and says nothing; it is ready when it accepts. Use it as a context."""

    def __init__(self, line, env=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = open(WORK / "other.log", "w")
        self.process = subprocess.Popen([str(part) for part in line(self.port)], env={**os.environ, **(env or {})},
                                        stdout=self.log, stderr=self.log)
        self.pid = self.process.pid

    def __enter__(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.1)
        self.__exit__()
        raise Failed(f"no server: {(WORK / 'other.log').read_text()[-500:]}")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.log.close()


def nchan():
    folder, version = installs.debian("libnginx-mod-nchan", "nginx", "nginx-common")
    place = WORK / "nchan"
    place.mkdir(parents=True, exist_ok=True)
    module = next(folder.rglob("ngx_nchan_module.so"))

    def line(port):
        text = (SCRIPTS / "nchan.conf").read_text()
        for name, value in {"port": port, "folder": place, "module": module}.items():
            text = text.replace(f"{{{name}}}", str(value))
        (place / "nginx.conf").write_text(text)
        return [folder / "usr/sbin/nginx", "-p", place, "-c", place / "nginx.conf"]

    return version.split(":")[-1].split("+")[0], line, {}


def node(deflate):
    modules, version = installs.npm("ws")
    env = {"WS_MODULE": (modules / "ws" / "wrapper.mjs").as_uri(), "WS_DEFLATE": "1" if deflate else "0"}
    return version, lambda port: ["node", SCRIPTS / "ws.mjs", port], env


def bun():
    modules, version = installs.npm("bun")
    return version, lambda port: [modules / ".bin" / "bun", SCRIPTS / "bun.mjs", port], {}


def python(package):
    interpreter, version = installs.pip(package)
    return version, lambda port: [interpreter, SCRIPTS / f"{package}_server.py", port], {}


# What it is, who subscribes to what, how many connections at most, deflate offered, how to start it.
OTHERS = [
    ("nginx with nchan", "1 channel", 15_000, False, nchan),
    ("Bun", "1 topic", 15_000, False, bun),
    ("npm ws", "in a Set", 15_000, False, lambda: node(False)),
    ("npm ws, deflate negotiated", "in a Set", 5_000, True, lambda: node(True)),
    ("Python websockets", "in a set", 5_000, False, lambda: python("websockets")),
    ("Python aiohttp", "in a set", 5_000, False, lambda: python("aiohttp")),
]


def others(bench):
    """User memory of idle connections to Fantail, to the bare loop, and to others."""
    fantail = bench.idle()
    table = {"Fantail": {**row("1 topic", fantail), "version": "this one"}}
    floor = TARGET / "release/examples/floor"
    if floor.exists():
        with pairs.Server(f"{floor} {LISTEN} --threads {bench.loops}", {}) as server:
            result = user(bench.by_loadtest(server.pid, f"ws://{server.listen}/ws/study", bench.steps(50_000)))
        table["the bare loop of benches/floor.rs"] = {**row("none", result), "version": "this one"}
    for name, subscribed, most, deflate, start in OTHERS:
        try:
            version, line, env = start()
            with Launched(line, env) as server:
                result = user(bench.by_loadtest(server.pid, f"ws://127.0.0.1:{server.port}/", bench.steps(most, 1_500),
                                                **({"deflate": True} if deflate else {})))
            table[name] = {**row(subscribed, result), "version": version}
        except (Failed, OSError) as error:
            print(f"  n/a: {name}: {error}", file=sys.stderr)
            table[name] = {"version": "n/a", "subscribed": subscribed, "steps": "n/a", "empty": UNKNOWN, "user": UNKNOWN,
                           "times": UNKNOWN}
    mine = fantail["user"]["value"]
    for found in table.values():
        each = found["user"]["value"]
        found["times"] = figure(each / mine) if each is not None else UNKNOWN
    return table


def row(subscribed, result):
    return {"subscribed": subscribed, "steps": result["steps"], "empty": result["empty"], "user": result["user"]}
