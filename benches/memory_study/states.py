"""The tables of user memory: by state, by part, after connections have left, and by setting."""

import pairs
from measure import figure, fit, held, mappings, sizes, span

OWN_ADDRESSES = "127.16.0.1-127.16.255.254"
NO_CAP = {"FANTAIL_ADMISSION_PER_ADDRESS_MAX": "0"}
HALF_HEAD = pairs.HELLO.format(path="/ws/study")[:100].encode()
MESSAGE_BYTES = 1_024
SEED = 11


def topics_path(count):
    """The URL of a connection that subscribes to so many topics, which all others do, too."""
    more = "&".join(f"topic=t{number}" for number in range(1, count))
    return "/ws/t0" + (f"?{more}" if more else "")


def broadcasts(server, clients):
    """Ten messages to everybody and a ping of everybody, all read."""
    for number in range(10):
        server.publish("study", b"x" * MESSAGE_BYTES + b"end%d" % number)
    answered(clients, b"end9")
    clients.all("send", pairs.client_frame(9, b"ping"))
    answered(clients, b"ping")


def echoes(_, clients):
    """Ten messages from everybody and their echoes."""
    for number in range(10):
        ending = b"end%d" % number
        clients.all("send", pairs.client_frame(2, b"x" * 100 + ending))
        answered(clients, ending)


def owing(_, clients):
    """Messages at once, which a rate of one a second forgives only after as many seconds; in five steps no more
    than the burst that is allowed."""
    ending = b"the last"
    for payload in [b"x" * 100] * 15 + [ending]:
        clients.all("send", pairs.client_frame(2, payload))
    answered(clients, ending)


def answered(clients, ending):
    found = clients.all("read", 2.0, ending)
    if found != clients.count:
        raise SystemExit(f"{found} of {clients.count} clients read {ending!r}")


def with_fragment(bench, env=None):
    """Connections that have sent a KiB of a message that goes on."""
    def load(server, count):
        with pairs.Holders(server, "/ws/study") as clients:
            clients.open(count)
            # Otherwise what the server tidies up after so many have come falls at a time of its own.
            bench.settled(server)
            clients.all("send", pairs.client_frame(1, b"x" * 1_024, final=False))
            pairs.wait_until(lambda: server.metric("fantail_inbox_bytes") >= 1_024 * count, 20, "the fragments")
            return bench.settled(server)

    return bench.afresh(10_000, load, {**NO_CAP, **(env or {})}, quick=1_500)


def stalled(bench, env=None, size=MESSAGE_BYTES, largest=2_000):
    """Connections whose outboxes are full, because they never read."""
    def load(server, count):
        with pairs.Holders(server, "/ws/study", receive_buffer=4096) as clients:
            clients.open(count)
            bench.settled(server)
            pairs.fill(server, "study", size, count)
            return bench.settled(server)

    return bench.afresh(largest, load, {**NO_CAP, **(env or {})})


def states(bench):
    """User memory by the state of the connection."""
    idle, acting = bench.idle, bench.acting
    # The clients of pairs.py have addresses of their own; what that costs is in a row of its own.
    silent = {**NO_CAP, "FANTAIL_ADMISSION_HANDSHAKES_MAX": "100000"}
    nothing = lambda *_: None
    rows = {
        "connected, nothing sent": lambda: acting("/", 20_000, nothing, silent, says=b""),
        "100 bytes of a request sent": lambda: acting("/", 20_000, nothing, silent, says=HALF_HEAD),
        "idle, no topic (`/echo`)": lambda: idle("/echo"),
        "idle, 1 topic": idle,
        "idle, 10 topics": lambda: idle(topics_path(10), 20_000),
        "idle, 100 topics": lambda: idle(topics_path(100), 10_000, {"FANTAIL_LIMITS_SUBSCRIPTIONS_MAX": "100"},
                                         quick=1_500),
        "idle, a topic of its own": lambda: idle("/ws/of-{i}", 20_000),
        "idle, 1 topic, an address of its own": lambda: idle(source=OWN_ADDRESSES),
        "idle, 1 topic, an address of its own, cap off": lambda: idle(source=OWN_ADDRESSES, env=NO_CAP),
        "idle, 1 topic, deflate negotiated": lambda: idle(deflate=True),
        "no topic, after 10 echoes": lambda: acting("/echo", 20_000, echoes, NO_CAP),
        "1 topic, after 10 broadcasts and a ping": lambda: acting("/ws/study", 20_000, broadcasts, NO_CAP),
        "1 topic, 1 KiB of an unfinished message sent": lambda: with_fragment(bench),
        "1 topic, stalled: 64 messages of 1 KiB wait": lambda: stalled(bench),
    }
    few = ["connected, nothing sent", "idle, 1 topic", "idle, 10 topics", "1 topic, stalled: 64 messages of 1 KiB wait"]
    return {name: run() for name, run in rows.items() if not bench.quick or name in few}


PLACES = {
    "heap": "of it in the main heap",
    "other": "of it in the threads' heaps and stacks and in maps of their own",
    "file": "of it in pages of the program and its libraries that were written to",
    "stack": "of it in the main thread's stack",
}


def parts(bench):
    """The parts of an idle connection by `fantail sizes`, the whole as measured, and where in the process it is."""
    def grow(env):
        seen = []
        with bench.server(env) as server, pairs.Holders(server, "/ws/study") as clients:
            for step in bench.steps(50_000):
                clients.open(step - clients.count)
                total = bench.settled(server)
                seen.append((step, {**mappings(server.pid), "total": total}))
        return lambda key: fit([(step, at[key]) for step, at in seen])

    capped, uncapped = grow({}), grow(NO_CAP)
    rows = {}
    told = [(step, sizes(bench, "--connections", str(step), "--loops", str(bench.loops))["parts"])
            for step in bench.steps(50_000)]
    for index, part in enumerate(told[0][1]):
        slope = fit([(step, parts[index]["bytes"]) for step, parts in told])["value"]
        if slope > 0.05:
            rows[f"{part['name']}, by their sizes"] = {"bytes": figure(slope)}
    whole, without = capped("total"), uncapped("total")
    rows["place of its address in the admission table, measured with and without"] = {
        "bytes": figure(whole["value"] - without["value"], whole["sure"] + without["sure"])}
    explained = sum(row["bytes"]["value"] for row in rows.values())
    rows["sum"] = {"bytes": figure(explained)}
    rows["measured"] = {"bytes": whole}
    rows["unexplained"] = {"bytes": figure(whole["value"] - explained, whole["sure"])}
    return {**rows, **{name: {"bytes": capped(key)} for key, name in PLACES.items()}}


FRACTIONS = (0.1, 0.5, 0.9, 1.0)


def leaving(bench):
    """What is kept after so many, drawn at random, have left without a goodbye."""
    seen = {fraction: [] for fraction in (0.0, *FRACTIONS)}
    stay = {}
    for step in bench.steps(40_000):
        with bench.server() as server, pairs.Holders(server, "/ws/study") as clients:
            empty = bench.settled(server)
            clients.open(step)
            seen[0.0].append((step, bench.settled(server) - empty))
            gone = 0.0
            for fraction in FRACTIONS:
                left = clients.all("leave", (fraction - gone) / (1 - gone), SEED + int(fraction * 100))
                gone = fraction
                pairs.wait_until(lambda left=left: held(server) == left, 20, "them to be gone")
                seen[fraction].append((step, bench.settled(server) - empty))
                stay[fraction] = left
        largest = step
    rows = {}
    for fraction, points in seen.items():
        who = stay.get(fraction, largest)
        rows["all are there" if not fraction else f"{fraction:.0%} have left"] = {
            "came": fit(points), "stay": figure(points[-1][1] / who if who else None),
            "kept": figure(points[-1][1]), "steps": span(points)}
    return rows


def settings(bench, known):
    """What a setting does to a row: with its default and with another value. `known` are the rows of `states`."""
    rated = {"FANTAIL_ADMISSION_CONNECT_RATE": "1000"}
    owed = {"FANTAIL_ADMISSION_MESSAGES_PER_SECOND": "1"}
    plain = known["idle, 1 topic"]
    own = known["idle, 1 topic, an address of its own"]
    full = known["1 topic, stalled: 64 messages of 1 KiB wait"]

    def row(setting, changes, before, after, key="user"):
        return {f"{setting}": {"changes": changes, "before": before[key], "after": after[key]}}

    def echoing(env):
        return bench.acting("/echo", 5_000, owing, {**NO_CAP, **env})

    more = bench.idle(loops=6)
    rows = {
        **row("`limits.subscriptions_max` 64, and 100 used instead of 1", "idle", plain, known["idle, 100 topics"]),
        **row("`admission.per_address_max` 20000 to 0", "idle, an address of its own", own,
              known["idle, 1 topic, an address of its own, cap off"]),
        **row("`admission.connect_rate` 0 to 1000", "idle, an address of its own", own,
              bench.idle(source=OWN_ADDRESSES, env=rated)),
        **row("`admission.messages_per_second` 0 to 1", "after 16 messages at once", echoing({}), echoing(owed)),
        **row("`deflate.enabled` true to false", "idle", plain, bench.idle(env={"FANTAIL_DEFLATE_ENABLED": "false"})),
        **row("`outbox.messages_max` 64 to 8", "stalled", full, stalled(bench, {"FANTAIL_OUTBOX_MESSAGES_MAX": "8"})),
        **row("`outbox.bytes_max` 256 KiB to 8 KiB", "stalled", full, stalled(bench, {"FANTAIL_OUTBOX_BYTES_MAX": "8 KiB"})),
        **row("`outbox.policy` drop-newest to latest", "stalled", full, stalled(bench, {"FANTAIL_OUTBOX_POLICY": "latest"})),
        **row("`server.loops` 3 to 6", "idle", plain, more),
        **row("`server.loops` 3 to 6, no connection", "the empty server", plain, more, "empty"),
    }
    return rows
