"""What one subscriber got, held against the numbers that the publisher was told: the only judge here."""

import collections

# A number that is further ahead than this is no number of ours.
AHEAD_MAX = 1_000_000
PROBLEMS_TOLD = 3


class Tally:
    """What all subscribers of one dialect did and found."""

    FAULTS = ("missing", "duplicate", "out_of_order", "wrong_payload", "wrong_place", "gap")

    def __init__(self):
        self.counts = collections.Counter()
        self.problems = []

    def problem(self, kind, text):
        self.counts[kind] += 1
        if len(self.problems) < PROBLEMS_TOLD:
            self.problems.append(f"{kind}: {text}")


class Account:
    """One subscriber's place in its topic. The place is what a subscriber comes back with; it is never taken from the
    server but at the very first time, and from then on it is what came."""

    def __init__(self, tally, topic):
        self.tally = tally
        self.topic = topic
        self.epoch = None
        self.next = None
        self.skipped = set()

    @property
    def position(self):
        return f"{self.epoch}:{self.next - 1}"

    def began(self, epoch, offset, gap=None):
        """The server says where it begins."""
        if self.epoch is None:
            self.epoch, self.next = epoch, offset + 1
            return
        if gap:
            self.tally.problem("gap", f"{self.topic} {self.position}: {gap}")
        if (epoch, offset) != (self.epoch, self.next - 1):
            self.tally.problem("wrong_place", f"{self.topic}: began at {epoch}:{offset}, asked for {self.position}")

    def took(self, offset, is_right):
        """A message came."""
        if offset == self.next:
            self.next += 1
        elif self.next < offset <= self.next + AHEAD_MAX:
            self.skipped.update(range(self.next, offset))
            self.next = offset + 1
        elif offset in self.skipped:
            self.skipped.remove(offset)
            self.tally.problem("out_of_order", f"{self.topic}: {offset} came behind {self.next - 1}")
        else:
            self.tally.problem("duplicate", f"{self.topic}: {offset} once more, at {self.next - 1}")
        self.tally.counts["delivered"] += 1
        if not is_right:
            self.tally.problem("wrong_payload", f"{self.topic}: {offset} is not what was published")

    def is_at(self, last):
        return self.next is not None and self.next > last

    def close(self, last):
        """The end: everything up to `last` was published."""
        if self.next is None:
            self.tally.problem("never_subscribed", self.topic)
            return
        missing = sorted(self.skipped)
        missing += range(self.next, last + 1)
        if missing:
            self.tally.problem("missing", f"{self.topic}: {len(missing)} of {last}, the first {missing[0]}")
            self.tally.counts["missing"] += len(missing) - 1
        if self.next > last + 1:
            self.tally.problem("wrong_payload", f"{self.topic}: {self.next - 1} was never published")
