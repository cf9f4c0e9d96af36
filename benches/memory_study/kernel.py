"""The tables of kernel memory: by object at each end, and what a connection holds whose peer does not read.

Both ends are on this machine, so the kernel's counters have both. What belongs to which is found by taking the
clients' ends away from under the server: a socket under TCP_REPAIR is closed without a word to its peer, so each
client's objects go and each server's stay.
"""

import csv
import ctypes
import fcntl
import json
import multiprocessing
import os
import re
import socket
import struct
import subprocess
import time

import pairs
from figures import UNKNOWN, difference, figure, fit, mean, scaled
from measure import NO_CAP, RAW, WORK, Disturbed, Failed, held
from sampling import Row, sample

CLONE_NEWNET = 0x4000_0000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
# Freed sockets go back to their caches a little later.
SETTLE_SECONDS = 0.7
BUFFERS_CONNECTIONS = 1_000
# A cache is a row when a connection has so many of its objects, and it is one of those that can be a connection's:
# what other programs do meanwhile is in the counters, too.
OBJECTS_MIN = 0.05
OF_SOCKETS = re.compile(r"TCP|sock_inode_cache|dentry|filp|eventpoll|ep_head|tcp_|request_sock|lsm_|skbuff|kmalloc-|:")


def caches():
    """Active objects of every slab cache, and the memory of one with its share of its slab's waste."""
    found = {}
    with open("/proc/slabinfo") as file:
        for line in file:
            words = line.split()
            if len(words) > 5 and words[1].isdigit():
                active, per_slab, pages = int(words[1]), int(words[4]), int(words[5])
                found[words[0]] = (active, pages * os.sysconf("SC_PAGESIZE") / per_slab)
    return found


def aliases(name):
    """Kinds of objects that the kernel keeps in the cache `name`, as far as they are a connection's."""
    folder = "/sys/kernel/slab"
    try:
        target = os.readlink(f"{folder}/{name}")
        links = [other for other in os.listdir(folder)
                 if os.path.islink(f"{folder}/{other}") and os.readlink(f"{folder}/{other}") == target]
    except OSError:
        return []
    ours = ("eventpoll_epi", "eventpoll_pwq", "tcp_bind_bucket", "tcp_bind2_bucket", "request_sock_TCP")
    return sorted(other for other in links if other in ours and other != name)


def meminfo(key):
    with open("/proc/meminfo") as file:
        return 1024 * int(re.search(rf"^{key}:\s+(\d+)", file.read(), re.M).group(1))


# How sure a connection's sockets have to be, of which there is one at each end.
UNSURE_MAX, UNSURE_QUICK_MAX = 0.1, 0.5


def objects(bench):
    """Kernel objects of one connection at each end, each launch alone on the machine, as far as that is ours to say."""
    try:
        caches()
    except OSError as error:
        raise Failed(f"/proc/slabinfo: {error}") from None
    count = 1 if bench.quick else bench.launches
    launches = [slopes_of(*opened_and_vanished(bench)) for _ in range(count)]
    write(bench, launches)
    unsure = over(launches, lambda one: one["TCP"]["both"])["sure"]
    if unsure > (UNSURE_QUICK_MAX if bench.quick else UNSURE_MAX):
        raise Disturbed(f"other programs open and close too much: TCP sockets ± {unsure:.2f} a connection")
    rows = rows_of(launches)
    return rows, {"planned": count, "again": 0, "missing": 0, "launches": count, "seed": None,
                  "steps": bench.steps(connections(bench), connections(bench))}


def connections(bench):
    return 3_000 if bench.quick else 30_000


def opened_and_vanished(bench):
    """What the caches hold while connections are opened, and while the clients' ends vanish."""
    count = connections(bench)
    opened, vanished = [], []
    with bench.server(NO_CAP) as server, pairs.Holders(server, "/ws/study") as clients:
        def read(here, into):
            time.sleep(SETTLE_SECONDS)
            into.append((here, caches(), meminfo("Slab")))

        # The first ones pay for what is there once.
        for fifth in range(6):
            step = max(count // 10, count * fifth // 5)
            clients.open(step - clients.count)
            read(step, opened)
        share = count // 5 // len(clients.pipes)
        for _ in range(4):
            read(clients.all("vanish", share), vanished)
        if held(server) != count:
            raise Failed("the server has noticed that clients vanished")
    return opened, vanished


def slopes_of(opened, vanished):
    """Of each cache the size of an object, and how many a connection has at both ends and at the client's."""
    found = {}
    for name, (_, each) in opened[0][1].items():
        found[name] = {"each": each, "both": fit([(here, at[name][0]) for here, at, _ in opened if name in at]),
                       "client": fit([(here, at[name][0]) for here, at, _ in vanished if name in at])}
    found["Slab"] = {"each": 1, "both": fit([(here, slab) for here, _, slab in opened]), "client": UNKNOWN}
    return found


def write(bench, launches):
    """The slopes of each launch, of the caches that can be a connection's."""
    folder = WORK if bench.quick else RAW
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "kernel.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["launch", "cache", "object_bytes", "both_objects", "client_objects"])
        for number, launch in enumerate(launches, 1):
            for name, one in sorted(launch.items()):
                if name == "Slab" or OF_SOCKETS.search(name) and abs(one["both"]["value"]) > OBJECTS_MIN:
                    client = one["client"]["value"]
                    writer.writerow([number, name, f"{one['each']:.0f}", f"{one['both']['value']:.4f}",
                                     "" if client is None else f"{client:.4f}"])


def over(launches, read):
    """A figure over all launches; of a single one, as sure as its own line is."""
    return read(launches[0]) if len(launches) == 1 else mean([read(one)["value"] for one in launches])


def total(parts):
    """The sum of figures that have nothing to do with each other."""
    return figure(sum(part["value"] for part in parts), sum((part["sure"] or 0.0) ** 2 for part in parts) ** 0.5)


def rows_of(launches):
    rows, others = {}, 0.0
    everywhere = set.intersection(*(set(one) for one in launches)) - {"Slab"}
    for name in sorted(everywhere):
        each = launches[0][name]["each"]
        both = over(launches, lambda one: one[name]["both"])
        client = over(launches, lambda one: one[name]["client"])
        if not OF_SOCKETS.search(name) or both["value"] < max(OBJECTS_MIN, both["sure"]):
            others += both["value"] * each
            continue
        server = over(launches, lambda one: difference(one[name]["both"], one[name]["client"]))
        also = aliases(name)
        rows[f"`{name}`" + (f" (with {', '.join(f'`{other}`' for other in also)})" if also else "")] = {
            "each": figure(each), "server_objects": server, "client_objects": client,
            "server": scaled(server, each), "client": scaled(client, each)}
    rows = dict(sorted(rows.items(), key=lambda row: -row[1]["server"]["value"]))
    rows["sum"] = {"each": UNKNOWN, "server_objects": UNKNOWN, "client_objects": UNKNOWN,
                   **{end: total([row[end] for row in rows.values()]) for end in ("server", "client")}}
    nothing = {"each": UNKNOWN, "server_objects": UNKNOWN, "client_objects": UNKNOWN, "client": UNKNOWN}
    rows["all other caches, other programs' growth included, both ends"] = {**nothing, "server": figure(others)}
    rows["`Slab` of /proc/meminfo, both ends"] = {**nothing, "server": over(launches, lambda one: one["Slab"]["both"])}
    return rows


def buffers(bench):
    """Bytes in the kernel of a connection whose peer does not read, with other sizes of the buffers."""
    rows = {
        "idle": {"sysctls": {}, "stalled": False},
        "stalled": {"sysctls": {}, "stalled": True},
        "stalled, `net.ipv4.tcp_wmem` at most 64 KiB": {
            "sysctls": {"net/ipv4/tcp_wmem": "4096 16384 65536"}, "stalled": True},
        "stalled, `net.ipv4.tcp_rmem` at most 16 KiB (the client's)": {
            "sysctls": {"net/ipv4/tcp_rmem": "4096 16384 16384"}, "stalled": True},
    }
    def probe(spec):
        return lambda connections, _: in_namespace(lambda: buffered(bench, spec["stalled"], connections), spec["sysctls"])

    samples = sample(bench, "buffers", [Row(name, probe(spec), [BUFFERS_CONNECTIONS]) for name, spec in rows.items()
                                        if not bench.quick or name == "stalled"])
    keys = ("send", "receive", "server", "client")
    return {name: {key: mean([total / BUFFERS_CONNECTIONS for total in samples.values(name, key)]) for key in keys}
            for name in dict.fromkeys(one.row for one in samples.launches)}, samples.about()


def buffered(bench, is_stalled, count):
    with bench.server(NO_CAP) as server, pairs.Holders(server, "/ws/study") as clients:
        clients.open(count)
        if is_stalled:
            pairs.fill(server, "study", 1_024, count)
        time.sleep(SETTLE_SECONDS)
        port = f":{int(server.listen.rsplit(':', 1)[1])}"
        run = subprocess.run(["ss", "-tmnHO", "state", "established"], capture_output=True, text=True)
    if run.returncode:
        raise Failed(f"ss: {run.stderr}")
    found = {"send": 0, "receive": 0, "server": 0, "client": 0}
    for line in run.stdout.splitlines():
        unread, unsent, ours, theirs = line.split()[:4]
        # Bytes of memory, with buffers' headers: r has been received, w is to be sent, f is set aside for more.
        memory = {name: int(value) for name, value in re.findall(r"\b(r|w|f)(\d+)", line.split("skmem:")[1])}
        if ours.endswith(port):
            found["send"] += int(unsent)
            found["server"] += sum(memory.values())
        elif theirs.endswith(port):
            found["receive"] += int(unread)
            found["client"] += sum(memory.values())
    return found


def in_namespace(run, sysctls):
    """`run` in a process with a network of its own, so that its settings are nobody else's."""
    ours, theirs = multiprocessing.Pipe()

    def inside():
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                flags = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
                up = struct.unpack("16sh22x", flags)[1] | IFF_UP
                fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", up))
            for name, value in sysctls.items():
                with open(f"/proc/sys/{name}", "w") as file:
                    file.write(value)
            theirs.send(json.dumps(run()))
        except (OSError, Failed, SystemExit) as error:
            theirs.send(json.dumps({"failed": str(error)}))

    process = multiprocessing.get_context("fork").Process(target=inside)
    process.start()
    theirs.close()
    try:
        answer = json.loads(ours.recv())
    except EOFError:
        raise Failed("the process with a network of its own has died") from None
    finally:
        process.join()
    if "failed" in answer:
        raise Failed(answer["failed"])
    return answer
