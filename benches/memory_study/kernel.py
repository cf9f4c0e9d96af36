"""The tables of kernel memory: by object at each end, and what a connection holds whose peer does not read.

Both ends are on this machine, so the kernel's counters have both. What belongs to which is found by taking the
clients' ends away from under the server: a socket under TCP_REPAIR is closed without a word to its peer, so each
client's objects go and each server's stay.
"""

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
from measure import UNKNOWN, Disturbed, Failed, figure, fit, held

CLONE_NEWNET = 0x4000_0000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
# Freed sockets go back to their caches a little later.
SETTLE_SECONDS = 0.7
# A cache is a row when a connection has so many of its objects, and it is one of those that can be a connection's:
# what other programs do meanwhile is in the counters, too.
OBJECTS_MIN = 0.05
OF_SOCKETS = re.compile(r"TCP|sock_inode_cache|dentry|filp|eventpoll|ep_head|tcp_|request_sock|lsm_|skbuff|kmalloc-|:")


# How sure a connection's objects should be: until they are, the run is made again, and the best one counts. Files that
# other programs open have directory entries, too.
UNSURE_MAX = {"TCP": 0.1, "sock_inode_cache": 0.1, "filp": 0.1, "dentry": 0.2}


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


def objects(bench):
    """Kernel objects of one connection at each end."""
    try:
        caches()
    except OSError as error:
        raise Failed(f"/proc/slabinfo: {error}") from None
    best, best_unsure = None, {}
    for _ in range(1 if bench.quick else 8):
        seen = opened_and_vanished(bench)
        unsure = {name: max(fit([(here, at[name][0]) for here, at, _ in points])["sure"] for points in seen)
                  for name in UNSURE_MAX}
        if best is None or sum(unsure.values()) < sum(best_unsure.values()):
            best, best_unsure = seen, unsure
        if all(unsure[name] < most for name, most in UNSURE_MAX.items()):
            break
    if best_unsure["TCP"] > (0.5 if bench.quick else 0.1):
        raise Disturbed(f"other programs open and close too much: TCP sockets ± {best_unsure['TCP']:.2f} a connection")
    return rows_of(*best)


def opened_and_vanished(bench):
    """What the caches hold while connections are opened, and while the clients' ends vanish."""
    count = 3_000 if bench.quick else 30_000
    opened, vanished = [], []
    with bench.server() as server, pairs.Holders(server, "/ws/study") as clients:
        def read(here, into):
            time.sleep(SETTLE_SECONDS)
            into.append((here, caches(), meminfo("Slab")))

        # The first ones pay for what is there once.
        clients.open(count // 10)
        for step in bench.steps(count, count):
            clients.open(step - clients.count)
            read(step, opened)
        share = count // 5 // len(clients.pipes)
        for _ in range(4):
            read(clients.all("vanish", share), vanished)
        if held(server) != count:
            raise Failed("the server has noticed that clients vanished")
    return opened, vanished


def rows_of(opened, vanished):
    rows, both_sum, client_sum, others = {}, 0.0, 0.0, 0.0
    for name, (_, each) in sorted(opened[0][1].items()):
        both = fit([(here, at[name][0]) for here, at, _ in opened if name in at])
        client = fit([(here, at[name][0]) for here, at, _ in vanished if name in at])
        if not OF_SOCKETS.search(name) or both["value"] < max(OBJECTS_MIN, both["sure"]):
            others += both["value"] * each
            continue
        server = figure(both["value"] - client["value"], both["sure"] + client["sure"])
        also = aliases(name)
        rows[f"`{name}`" + (f" (with {', '.join(f'`{other}`' for other in also)})" if also else "")] = {
            "each": figure(each), "server_objects": server, "client_objects": client,
            "server": scaled(server, each), "client": scaled(client, each)}
        both_sum += both["value"] * each
        client_sum += client["value"] * each
    rows = dict(sorted(rows.items(), key=lambda row: -row[1]["server"]["value"]))
    rows["sum"] = {"each": UNKNOWN, "server_objects": UNKNOWN, "client_objects": UNKNOWN,
                   "server": figure(both_sum - client_sum), "client": figure(client_sum)}
    nothing = {"each": UNKNOWN, "server_objects": UNKNOWN, "client_objects": UNKNOWN, "client": UNKNOWN}
    rows["all other caches, other programs' growth included, both ends"] = {**nothing, "server": figure(others)}
    slab = fit([(here, slab) for here, _, slab in opened])
    rows["`Slab` of /proc/meminfo, both ends"] = {**nothing, "server": slab}
    return rows


def scaled(one, factor):
    return figure(one["value"] * factor, one["sure"] * factor)


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
    return {name: in_namespace(lambda spec=spec: buffered(bench, spec["stalled"]), spec["sysctls"])
            for name, spec in rows.items() if not bench.quick or name == "stalled"}


def buffered(bench, is_stalled):
    count = 200 if bench.quick else 1_000
    with bench.server() as server, pairs.Holders(server, "/ws/study") as clients:
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
    return {**{name: figure(value / count) for name, value in found.items()}, "steps": f"{count:,}"}


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
