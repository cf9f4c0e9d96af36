"""The tables of user memory: by state, by part, after connections have left, and by setting."""

import time

import pairs
from figures import UNKNOWN, difference, figure, fit, mean, scaled
from measure import AFTER_LEAVING_SECONDS, NO_CAP, held, mappings, settled, sizes, span
from sampling import Row, sample

HALF_HEAD = pairs.HELLO.format(path="/ws/study")[:100].encode()
MESSAGE_BYTES = 1_024


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
    """Messages at once, which a rate of one a second forgives only after as many seconds; no more than the
    burst that is allowed."""
    ending = b"the last"
    for payload in [b"x" * 100] * 15 + [ending]:
        clients.all("send", pairs.client_frame(2, payload))
    answered(clients, ending)


def answered(clients, ending):
    found = clients.all("read", 2.0, ending)
    if found != clients.count:
        raise SystemExit(f"{found} of {clients.count} clients read {ending!r}")


def fragments(server, clients):
    """A KiB of a message that goes on from everybody."""
    clients.all("send", pairs.client_frame(1, b"x" * 1_024, final=False))
    pairs.wait_until(lambda: server.metric("fantail_inbox_bytes") >= 1_024 * clients.count, 20, "the fragments")


def stalled(bench, env=None, size=MESSAGE_BYTES):
    """A probe: connections whose outboxes are full, because they never read."""
    def fill(server, clients):
        pairs.fill(server, "study", size, clients.count)

    return bench.acting("/ws/study", fill, {**NO_CAP, **(env or {})}, receive_buffer=4096)


def slopes(bench, table, rows, launches=None):
    """Rows of a table that is nothing but slopes, and what to say beside it."""
    samples = sample(bench, table, rows, launches)
    found = {row.name: {"user": fit_or_unknown(samples.points(row.name, "open")), "steps": span(row.steps),
                        "empty": mean(samples.values(row.name, "empty"))} for row in rows}
    return found, samples.about()


def fit_or_unknown(points):
    return fit(points) if len(points) > 1 else UNKNOWN


IDLE = "idle, 1 topic"
OWN_ADDRESS = "idle, 1 topic, cap by address on"
OWN_TOPIC = "idle, a topic of its own"
HUNDRED = "idle, 100 topics"
STALLED = "1 topic, stalled: 64 messages of 1 KiB wait"


def states(bench):
    """User memory by the state of the connection."""
    idle, acting = bench.idle, bench.acting
    silent = {**NO_CAP, "FANTAIL_ADMISSION_HANDSHAKES_MAX": "100000"}
    nothing = lambda *_: None
    many, some, few = bench.steps(10_000, 10_000), bench.steps(10_000, 5_000), bench.steps(2_000, 2_000)
    hundred = {**NO_CAP, "FANTAIL_LIMITS_SUBSCRIPTIONS_MAX": "100"}
    rows = [
        Row("connected, nothing sent", acting("/", nothing, silent, says=b""), some),
        Row("100 bytes of a request sent", acting("/", nothing, silent, says=HALF_HEAD), some),
        Row("idle, no topic (`/echo`)", idle("/echo"), many),
        Row(IDLE, idle(), many),
        Row("idle, 10 topics", idle(topics_path(10)), some),
        Row(HUNDRED, idle(topics_path(100), hundred), bench.steps(10_000)),
        Row(OWN_TOPIC, idle("/ws/of-{number}"), some),
        Row(OWN_ADDRESS, idle(env={}), many),
        Row("idle, 1 topic, deflate negotiated", idle(deflate=True), many),
        Row("no topic, after 10 echoes", acting("/echo", echoes), some),
        Row("1 topic, after 10 broadcasts and a ping", acting("/ws/study", broadcasts), some),
        Row("1 topic, 1 KiB of an unfinished message sent", acting("/ws/study", fragments), bench.steps(10_000)),
        Row(STALLED, stalled(bench), few),
    ]
    quick = [IDLE, "idle, 10 topics", OWN_TOPIC, STALLED]
    return slopes(bench, "states", [row for row in rows if not bench.quick or row.name in quick])


PLACES = {
    "heap": "of it in the main heap",
    "other": "of it in the threads' heaps and stacks and in maps of their own",
    "file": "of it in pages of the program and its libraries that were written to",
    "stack": "of it in the main thread's stack",
}


def parts(bench):
    """The parts of an idle connection by `fantail sizes`, the whole as measured, and where in the process it is."""
    def probe(env):
        def grown(connections, _):
            with bench.server(env) as server, pairs.Holders(server, "/ws/study") as clients:
                clients.open(connections)
                found = {}
                found["total"] = settled(server.user_bytes, found)
                return {**found, **mappings(server.pid)}

        return grown

    steps = bench.steps(10_000)
    samples = sample(bench, "parts", [Row("cap on", probe({}), steps), Row("cap off", probe(NO_CAP), steps)])
    whole, without = (fit(samples.points(row, "total")) for row in ("cap on", "cap off"))
    rows = {}
    told = [(step, sizes(bench, "--connections", str(step), "--loops", str(bench.loops))["parts"]) for step in steps]
    for index, part in enumerate(told[0][1]):
        slope = fit([(step, parts[index]["bytes"]) for step, parts in told])["value"]
        if slope > 0.05:
            rows[f"{part['name']}, by their sizes"] = {"bytes": figure(slope)}
    rows["place of its address in the admission table, measured with and without"] = {"bytes": difference(whole, without)}
    explained = sum(row["bytes"]["value"] for row in rows.values())
    rows["sum"] = {"bytes": figure(explained)}
    rows["measured"] = {"bytes": whole}
    rows["unexplained"] = {"bytes": figure(whole["value"] - explained, whole["sure"])}
    places = {name: {"bytes": fit(samples.points("cap on", key))} for key, name in PLACES.items()}
    return {**rows, **places}, samples.about()


FRACTIONS = (0.1, 0.5, 0.9, 1.0)


def leaving(bench):
    """What is kept after so many, drawn at random, have left without a goodbye."""
    def probe(connections, seed):
        with bench.server({}) as server, pairs.Holders(server, "/ws/study") as clients:
            found = {}
            found["empty"] = settled(server.user_bytes, found)
            clients.open(connections)
            found["0%"] = settled(server.user_bytes, found)
            gone = 0.0
            for fraction in FRACTIONS:
                left = clients.all("leave", (fraction - gone) / (1 - gone), seed + int(fraction * 100))
                gone = fraction
                pairs.wait_until(lambda left=left: held(server) == left, 20, "them to be gone")
                # It gives back when it has been quiet for a second, and again after what is left has moved.
                time.sleep(AFTER_LEAVING_SECONDS)
                found[f"{fraction:.0%}"] = settled(server.user_bytes, found)
            return found

    steps = bench.steps(10_000)
    samples = sample(bench, "leaving", [Row("idle, cap by address on", probe, steps)])
    rows = {}
    for fraction in (0.0, *FRACTIONS):
        points = samples.points("idle, cap by address on", f"{fraction:.0%}", "empty")
        most = [value for at, value in points if at == steps[-1]]
        kept = mean(most)
        stay = round(steps[-1] * (1 - fraction))
        rows["all are there" if not fraction else f"{fraction:.0%} have left"] = {
            "came": fit(points), "stay": scaled(kept, 1 / stay) if stay else UNKNOWN, "kept": kept, "steps": span(steps)}
    return rows, samples.about()


def settings(bench, known):
    """What a setting does to a row: with its default and with another value. `known` are the rows of `states`."""
    rated = {"FANTAIL_ADMISSION_CONNECT_RATE": "1000"}
    owed = {"FANTAIL_ADMISSION_MESSAGES_PER_SECOND": "1"}
    many, few, five = bench.steps(10_000), bench.steps(2_000), bench.steps(5_000)
    probes = {
        "rated": Row("rated", bench.idle(env=rated), many),
        "owing nothing": Row("owing nothing", bench.acting("/echo", owing), five),
        "owing": Row("owing", bench.acting("/echo", owing, {**NO_CAP, **owed}), five),
        "no deflate": Row("no deflate", bench.idle(env={**NO_CAP, "FANTAIL_DEFLATE_ENABLED": "false"}), many),
        "8 messages": Row("8 messages", stalled(bench, {"FANTAIL_OUTBOX_MESSAGES_MAX": "8"}), few),
        "8 KiB": Row("8 KiB", stalled(bench, {"FANTAIL_OUTBOX_BYTES_MAX": "8 KiB"}), few),
        "latest": Row("latest", stalled(bench, {"FANTAIL_OUTBOX_POLICY": "latest"}), few),
        "6 loops": Row("6 loops", bench.idle(loops=6), many),
    }
    found, about = slopes(bench, "settings", list(probes.values()))

    def row(setting, changes, before, after, key="user"):
        return {setting: {"changes": changes, "before": before[key], "after": after[key]}}

    rows = {
        **row("`limits.subscriptions_max` 64, and 100 used instead of 1", "idle", known[IDLE], known[HUNDRED]),
        **row("`admission.per_address_max` 20000 to 0", "idle, an address of its own", known[OWN_ADDRESS], known[IDLE]),
        **row("`admission.connect_rate` 0 to 1000", "idle, an address of its own", known[OWN_ADDRESS], found["rated"]),
        **row("`admission.messages_per_second` 0 to 1", "after 16 messages at once", found["owing nothing"], found["owing"]),
        **row("`deflate.enabled` true to false", "idle", known[IDLE], found["no deflate"]),
        **row("`outbox.messages_max` 64 to 8", "stalled", known[STALLED], found["8 messages"]),
        **row("`outbox.bytes_max` 256 KiB to 8 KiB", "stalled", known[STALLED], found["8 KiB"]),
        **row("`outbox.policy` drop-newest to latest", "stalled", known[STALLED], found["latest"]),
        **row("`server.loops` 3 to 6", "idle", known[IDLE], found["6 loops"]),
        **row("`server.loops` 3 to 6, no connection", "the empty server", known[IDLE], found["6 loops"], "empty"),
    }
    return rows, about
