"""The image without an engine: what packaging/container and packaging/kubernetes say, checked and run.

    container.py check     lint the Dockerfile, read compose.yaml and the manifest against their schemas and this server
    container.py run       build as the Dockerfile does, then run its commands as an engine would: an empty, read-only
                           root, a user without rights, process 1 of its own. Needs root.

`run` takes --binary FILE instead of building, and builds into CARGO_TARGET_DIR (else target/).
"""

import argparse
import ctypes
import fcntl
import http.client
import json
import os
import pathlib
import re
import resource
import shlex
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "packaging" / "container"
DOCKERFILE = FOLDER / "Dockerfile"
COMPOSE = FOLDER / "compose.yaml"
MANIFEST = ROOT / "packaging" / "kubernetes" / "fantail.yaml"
# What gcr.io/distroless/cc-debian12 has that a Rust program is linked to.
LIBRARIES = re.compile(r"/(libc\.so\.6|libm\.so\.6|libgcc_s\.so\.1|ld-linux-[\w-]+\.so\.\d)$")
# After drain.delay_seconds and drain.seconds: close frames, linger, and the end of the loops.
AFTER_DRAIN_SECONDS = 12
CERTIFICATES = ROOT / "loadtest" / "tests" / "tls" / "certificates"
TLS_FILES = {"FANTAIL_TLS_CERTIFICATE": "server.pem", "FANTAIL_TLS_KEY": "server.key"}
SECRET = "admin:0123456789abcdef0123456789abcdef"
WAIT = 60
# The limit on open files inside.
NOFILE = 4096
# The variable that tells a child which of CASES it is to run.
INSIDE = "CONTAINER_TEST_CASE"


class Failed(Exception):
    """What is wrong, for people."""


def need(condition, what):
    if not condition:
        raise Failed(what)


# ---------------------------------------------------------------------------------------------------
# The Dockerfile


def instructions():
    """Each stage of the Dockerfile: its base, and its instructions as (NAME, text)."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE))
    stages = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append((rest.split()[0], []))
        else:
            stages[-1][1].append((name, rest.strip()))
    return stages


def of(stage, name):
    return [rest for known, rest in stage[1] if known == name]


def single(stage, name):
    found = of(stage, name)
    need(len(found) == 1, f"the stage from {stage[0]} has {len(found)} {name}")
    return found[0]


def listed(text, name):
    """An instruction in its exec form; a shell form would need a shell that the image has not."""
    try:
        return json.loads(text)
    except ValueError:
        raise Failed(f"{name} is not in exec form: {text}") from None


def healthcheck(stage):
    options, _, command = single(stage, "HEALTHCHECK").partition("CMD")
    return options, listed(command, "HEALTHCHECK")


def environment(stage):
    return dict(pair.split("=", 1) for line in of(stage, "ENV") for pair in shlex.split(line))


def context(into):
    """Copies what an engine would send: the last pattern that fits a path or a folder above it decides."""
    lines = [line.strip() for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()]
    rules = []
    for line in (line for line in lines if line and not line.startswith("#")):
        pattern = re.escape(line.lstrip("!")).replace(r"\*", "[^/]*")
        rules.append((re.compile(f"{pattern}(/|$)"), line.startswith("!")))
    # Whoever checked the sources out need not be who runs this.
    git = ["git", "-c", "safe.directory=*"]
    tracked = subprocess.run([*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                             check=True, capture_output=True, text=True)
    count = 0
    for path in filter(None, tracked.stdout.split("\0")):
        sent = True
        for rule, keeps in rules:
            sent = keeps if rule.match(path) else sent
        if sent and (ROOT / path).is_file():
            (into / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, into / path)
            count += 1
    return count


def build(stage, final):
    """Runs the commands of the build stage in a copy of the context, and gives what the image would take from it."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    # Always there: cargo takes another folder for another package.
    folder = target / "container-context"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        workdir = single(stage, "WORKDIR")
        need(single(stage, "COPY") == ". .", "the build stage does not copy the context as it is")
        print(f"context: {context(folder)} files")
        env = {**os.environ, "CARGO_TARGET_DIR": str(target)}
        for command in of(stage, "RUN"):
            print(f"RUN {command}", flush=True)
            need(subprocess.run(["/bin/sh", "-c", command], cwd=folder, env=env).returncode == 0, f"failed: {command}")
        source = single(final, "COPY").split()[1]
        inside = pathlib.PurePosixPath(source).relative_to(workdir)
        need(inside.parts[0] == "target", f"{source} is not what cargo makes")
        built = folder / "fantail"
        shutil.copy2(target.joinpath(*inside.parts[1:]), built)
        return built
    except BaseException:
        shutil.rmtree(folder)
        raise


# ---------------------------------------------------------------------------------------------------
# check


def check(arguments):
    # From the environment that `.ci/install-deploy` makes.
    tools = pathlib.Path(sys.executable).parent
    subprocess.run([tools / "hadolint", "--failure-threshold", "ignore", DOCKERFILE], check=True)

    build_stage, final = instructions()
    need(environment(final).get("FANTAIL_SERVER_LISTEN", "").startswith("0.0.0.0:"), "nobody could connect")
    port = environment(final)["FANTAIL_SERVER_LISTEN"].rsplit(":", 1)[1]
    need(single(final, "EXPOSE") == port, "EXPOSE is not the port of FANTAIL_SERVER_LISTEN")
    need(re.fullmatch(r"[1-9]\d*:[1-9]\d*", single(final, "USER")), "USER is not a number that is not root's")
    need(single(final, "STOPSIGNAL") == "SIGTERM", "only SIGTERM drains")
    program = listed(single(final, "ENTRYPOINT"), "ENTRYPOINT")
    need(single(final, "COPY").split()[2] == program[0], "ENTRYPOINT is not what was copied")
    need(healthcheck(final)[1][0] == program[0], "HEALTHCHECK runs another program")
    suite = {stage[0].rsplit("-", 1)[-1].split(":")[0].replace("debian12", "bookworm") for stage in (build_stage, final)}
    need(suite == {"bookworm"}, f"the stages have different versions of glibc: {suite}")

    for tls in (False, True):
        examples(arguments, final, tls)
    print("the Dockerfile, compose.yaml and fantail.yaml are well")


def examples(arguments, final, tls):
    """compose.yaml and fantail.yaml, as they are or with what is there for TLS."""
    import compose_spec
    import yaml

    compose, manifest = (path.read_text() for path in (COMPOSE, MANIFEST))
    if tls:
        compose, manifest = (text.replace("#tls ", "") for text in (compose, manifest))
    compose_spec.PyCompose.from_yaml(compose).validate()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(manifest)
        file.flush()
        check = [pathlib.Path(sys.executable).parent / "kubernetes-validate", "--strict", "--quiet", file.name]
        subprocess.run(check, check=True)

    service = yaml.safe_load(compose)["services"]["fantail"]
    known = understood("compose.yaml", service["environment"], arguments.binary)
    drains("compose.yaml", known, seconds(service["stop_grace_period"]))
    need(service["healthcheck"]["test"] == ["CMD", *healthcheck(final)[1]], "compose.yaml checks another health")
    settings = dict(re.findall(r"^-?([\w.]+) = (.*)$", (ROOT / "sysctl/fantail.conf").read_text(), re.MULTILINE))
    for key, value in service["sysctls"].items():
        need(settings.get(key) == str(value), f"compose.yaml sets {key} = {value}; sysctl/fantail.conf does not")

    deployment = next(one for one in yaml.safe_load_all(manifest) if one["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    given = {one["name"]: one["value"] for one in container["env"]}
    known = understood("fantail.yaml", given, arguments.binary)
    drains("fantail.yaml", known, pod["terminationGracePeriodSeconds"])
    need(f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == single(final, "USER"),
         "the manifest runs it as another user than the image")
    need((known["tls.listen"] != '""') == tls, "TLS is asked for, and there is none, or the other way round")
    ports = {one["containerPort"] for one in container["ports"]}
    need(({8443} <= ports) == tls, f"the manifest has the ports {ports}")
    need(("8443:8443" in service["ports"]) == tls, f"compose.yaml has the ports {service['ports']}")


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


def settled(given, binary):
    """Every key with its value, as this server understands the variables."""
    # Files of the temporary kind are their owner's alone, as this server wants its secrets; those of a checkout are everybody's.
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys, tempfile.NamedTemporaryFile("w", suffix=".key") as key:
        keys.write(SECRET + "\n")
        keys.flush()
        key.write((CERTIFICATES / TLS_FILES["FANTAIL_TLS_KEY"]).read_text())
        key.flush()
        files = {"FANTAIL_ADMIN_KEYS_FILE": keys.name, "FANTAIL_TLS_KEY": key.name,
                 "FANTAIL_TLS_CERTIFICATE": str(CERTIFICATES / TLS_FILES["FANTAIL_TLS_CERTIFICATE"])}
        env = {name: files.get(name, str(value)) for name, value in given.items()}
        ran = subprocess.run([binary, "check-config", "--print"], env=env, capture_output=True, text=True)
    need(ran.returncode == 0 and "warn" not in ran.stderr, ran.stderr)
    section, found = "", {}
    for line in ran.stdout.splitlines():
        if match := re.match(r"\[(\w+)\]", line):
            section = match[1]
        elif match := re.match(r"(\w+) = (\S+)", line):
            found[f"{section}.{match[1]}"] = match[2]
    return found


def understood(name, given, binary):
    """Every key with its value; each variable has to be one and to come through."""
    known = settled(given, binary)
    for variable, value in given.items():
        section, _, key = variable.removeprefix("FANTAIL_").lower().partition("_")
        key = f"{section}.{key}"
        need(variable.startswith("FANTAIL_") and key in known, f"{name}: {variable} is no key")
        need(key.endswith("keys_file") or variable in TLS_FILES or known[key].strip('"') == str(value), f"{name}: {variable} came to {known[key]}")
    return known


def drains(name, known, grace):
    """Whether the drain is over before SIGKILL comes."""
    needed = sum(float(known[f"drain.{key}"]) for key in ("delay_seconds", "seconds")) + AFTER_DRAIN_SECONDS
    need(needed <= grace <= needed + 30, f"{name}: {grace} s to stop, and the drain needs {needed} s")


# ---------------------------------------------------------------------------------------------------
# run


LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWPID = 0x20000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
PR_SET_NO_NEW_PRIVS = 38


def system(name, *arguments):
    if getattr(LIBC, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}{arguments}")


def run(arguments):
    build_stage, final = instructions()
    if case := os.environ.get(INSIDE):
        return inside(arguments.binary, final, CASES[case])
    binary = pathlib.Path(arguments.binary).resolve() if arguments.binary else build(build_stage, final)
    try:
        # Mounts and addresses of its own, all gone with the last process.
        line = ["unshare", "--mount", "--net", "--fork", "--kill-child", sys.executable, __file__, "run", "--binary",
                binary]
        for case in CASES:
            ran = subprocess.run(line, env={**os.environ, INSIDE: case})
            need(ran.returncode == 0, f"the image does not run {case}")
    finally:
        if not arguments.binary:
            shutil.rmtree(binary.parent)


class Container:
    """One run of the image. Use it as a context."""

    def __init__(self, binary, final, extra, files):
        self.env = {**environment(final), **extra}
        self.user = tuple(map(int, single(final, "USER").split(":")))
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="fantail-root-"))
        self.root.chmod(0o755)
        self.put(binary, listed(single(final, "ENTRYPOINT"), "ENTRYPOINT")[0])
        linked = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True).stdout
        for path in re.findall(r"(/\S+) \(0x", linked):
            need(LIBRARIES.search(path), f"the image has no {path}")
            self.put(path, path)
        for path, text in files.items():
            self.put(None, path, text)
        (self.root / "proc").mkdir()
        root = str(self.root).encode()
        system("mount", root, root, b"", MS_BIND, None)
        system("mount", b"", root, b"", MS_REMOUNT | MS_BIND | MS_RDONLY, None)
        # The next child is process 1 of its own namespace, later ones are beside it, as with `docker exec`.
        system("unshare", CLONE_NEWPID)
        self.main = None

    def put(self, source, path, text=None):
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            shutil.copyfile(source, place)
            place.chmod(0o755)
        else:
            place.write_text(text)
            place.chmod(0o444)

    def start(self, command, first=False, **options):
        def enter():
            if first:
                system("mount", b"proc", str(self.root / "proc").encode(), b"proc", 0, None)
            os.chroot(self.root)
            os.chdir("/")
            resource.setrlimit(resource.RLIMIT_NOFILE, (NOFILE, NOFILE))
            os.setgroups([])
            os.setgid(self.user[1])
            os.setuid(self.user[0])
            system("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)

        return subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, preexec_fn=enter, **options)

    def serve(self, command):
        self.main = self.start(command, first=True)
        line = self.main.stdout.readline()
        if not line.startswith("fantail ready "):
            self.main.kill()
            raise Failed(f"no ready line: {line!r} {self.main.communicate()}")

    def execute(self, command):
        one = self.start(command)
        out, err = one.communicate(timeout=WAIT)
        return one.returncode, out, err

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.main and self.main.poll() is None:
            self.main.kill()
            self.main.communicate()
        # Mounts of this namespace; the folder behind them is removed.
        LIBC.umount2(str(self.root / "proc").encode(), 2)
        system("umount2", str(self.root).encode(), 2)
        shutil.rmtree(self.root)


def loopback_up():
    with socket.socket() as any_socket:
        request = struct.pack("16sh22x", b"lo", 0x1 | 0x40)
        fcntl.ioctl(any_socket, 0x8914, request)


def websocket(port, path, tls=None):
    one = socket.create_connection(("127.0.0.1", port), WAIT)
    if tls:
        one = tls.wrap_socket(one, server_hostname="localhost")
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    one.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = one.recv(1)
        need(piece, f"no upgrade: {head!r}")
        head += piece
    need(head.startswith(b"HTTP/1.1 101 "), f"no upgrade: {head!r}")
    return one


def frame(one):
    """The next short frame: opcode and payload."""
    head = exactly(one, 2)
    return head[0] & 15, exactly(one, head[1])


def exactly(one, count):
    got = b""
    while len(got) < count:
        piece = one.recv(count - len(got))
        need(piece, "the connection ended without a close frame")
        got += piece
    return got


def ask(port, method, path, body=None, key=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
    try:
        connection.request(method, path, body=body, headers={"Authorization": f"Bearer {key}"} if key else {})
        return connection.getresponse().status
    finally:
        connection.close()


def drained(container, signal_number, connected):
    """Stops it as an engine does: the client is told, and process 1 ends by itself in time."""
    begin = time.monotonic()
    container.main.send_signal(signal_number)
    opcode, payload = frame(connected)
    need((opcode, payload[:2]) == (8, struct.pack(">H", 1001)), f"instead of 1001 came {opcode} {payload!r}")
    connected.sendall(b"\x88\x82\0\0\0\0" + payload[:2])
    _, log = container.main.communicate(timeout=WAIT)
    need(container.main.returncode == 0, f"exit code {container.main.returncode}\n{log}")
    return time.monotonic() - begin, log


def inside(binary, final, case):
    """In namespaces of its own."""
    # What is mounted here shall not be seen outside.
    system("mount", b"", b"/", b"", MS_REC | MS_PRIVATE, None)
    loopback_up()
    command = listed(single(final, "ENTRYPOINT"), "ENTRYPOINT") + listed(single(final, "CMD"), "CMD")
    _, health = healthcheck(final)
    case(binary, final, command, health, signal.Signals[single(final, "STOPSIGNAL")])


def as_it_is(binary, final, command, health, stop):
    with Container(binary, final, {}, {}) as container:
        container.serve(command)
        code, out, err = container.execute(health)
        need((code, out) == (0, "ok\n"), f"HEALTHCHECK: {code} {out} {err}")
        code, _, err = container.execute([health[0], "preflight", "--connections", "1000"])
        need(code == 0, f"preflight: {err}")
        connected = websocket(8080, "/ws/news")
        need(ask(8081, "POST", "/publish/news", b"hello") == 200, "no publish")
        need(frame(connected) == (1, b"hello"), "no message")
        status = pathlib.Path(f"/proc/{container.main.pid}/status").read_text()
        for line in ("CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"):
            need(line in status, f"no {line!r} in its status")
        need(re.search(r"^NSpid:.*\t1$", status, re.MULTILINE), "it is not process 1")
        took, log = drained(container, stop, connected)
        need("tables=split" in log, f"its loops share one table:\n{log}")
        need("panicked" not in log and "ERROR" not in log, log)
        print(f"as it is: ready, well, drained in {took:.1f} s as process 1 without rights, on an empty read-only root")


def with_keys(binary, final, command, health, stop):
    """As compose.yaml has it."""
    extra = {"FANTAIL_SERVER_ADMIN": "0.0.0.0:8081", "FANTAIL_ADMIN_KEYS_FILE": "/run/secrets/fantail_keys"}
    with Container(binary, final, extra, {"/run/secrets/fantail_keys": SECRET + "\n"}) as container:
        container.serve(command)
        code, out, err = container.execute(health)
        need((code, out) == (0, "ok\n"), f"HEALTHCHECK: {code} {out} {err}")
        need(container.execute([*health, "--ready"])[:2] == (0, "ready\n"), "not ready")
        need(ask(8081, "GET", "/readyz") == 200, "a probe needs a key")
        need(ask(8081, "POST", "/publish/news", b"x") == 401, "a publisher needs no key")
        connected = websocket(8080, "/ws/news")
        need(ask(8081, "POST", "/publish/news", b"hello", SECRET.split(":")[1]) == 200, "no publish")
        need(frame(connected) == (1, b"hello"), "no message")
        took, _ = drained(container, stop, connected)
        print(f"with keys: ready, well, refuses without one, drained in {took:.1f} s")


def with_tls(binary, final, command, health, stop):
    """As docs/deploy.md has it: no port without TLS but on the container's own loopback."""
    inside = {name: f"/run/secrets/{file}" for name, file in TLS_FILES.items()}
    extra = {"FANTAIL_SERVER_LISTEN": "127.0.0.1:8080", "FANTAIL_TLS_LISTEN": "0.0.0.0:8443", **inside}
    authority = "/run/secrets/ca.pem"
    files = {path: (CERTIFICATES / TLS_FILES[name]).read_text() for name, path in inside.items()}
    files[authority] = (CERTIFICATES / "ca.pem").read_text()
    with Container(binary, final, extra, files) as container:
        container.serve(command)
        code, out, err = container.execute(health)
        need((code, out) == (0, "ok\n"), f"HEALTHCHECK: {code} {out} {err}")
        look = [health[0], "preflight", "--tls", "--ca", authority]
        code, out, err = container.execute([*look, "--connect", "127.0.0.1:8443"])
        need(code == 0 and "TLS 1.3" in out, f"preflight of the port: {out} {err}")
        code, out, err = container.execute([*look, "--host", "localhost"])
        need(code == 0 and "fine    key" in out, f"preflight of the files: {out} {err}")
        context = ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")
        with websocket(8443, "/ws/news", context) as connected:
            need(ask(8081, "POST", "/publish/news", b"hello") == 200, "no publish")
            need(frame(connected) == (1, b"hello"), "no message")
            took, _ = drained(container, stop, connected)
        print(f"with TLS: ready, well, believed, drained in {took:.1f} s")


CASES = {"as it is": as_it_is, "with keys": with_keys, "with TLS": with_tls}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["check", "run"])
    parser.add_argument("--binary", help="a fantail that is built already")
    arguments = parser.parse_args()
    if arguments.what == "check":
        arguments.binary = arguments.binary or os.environ.get("FANTAIL_BIN") or ROOT / "target/debug/fantail"
    try:
        {"check": check, "run": run}[arguments.what](arguments)
    except (Failed, subprocess.CalledProcessError) as failure:
        sys.exit(f"container: {failure}")


if __name__ == "__main__":
    main()
