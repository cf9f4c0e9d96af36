"""A process of subscribers: connects them, breaks their connections off at random, brings them back where they were.

kill        the connection is reset
half-close  the client's side ends, and what still comes until the server's ends counts
stall       nothing is read for some seconds; then what is there, which may end with the server's having given it up
"""

import collections
import errno
import heapq
import os
import random
import select
import socket
import struct
import time

from account import Account, Tally
from dialects import DIALECTS, Broken, Ended

BREAKS = ("kill", "half-close", "stall")
RESET = struct.pack("ii", 1, 0)
# As small as a slow reader's, so that a stall is felt.
RECEIVE_BUFFER = 4096
IP_BIND_ADDRESS_NO_PORT = 24
# Nothing was heard for so long behind a half-close: the server has forgotten this one.
FORGOTTEN = 60


class Subscriber:
    """One subscriber over all its connections."""

    def __init__(self, worker, number, dialect, topic):
        self.worker = worker
        self.number = number
        self.dialect = dialect
        self.account = Account(worker.tallies[dialect], topic)
        self.socket = None
        # Which connection: what was planned for an older one is off.
        self.turn = 0

    def connect(self):
        self.turn += 1
        one = socket.socket()
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        one.bind((f"127.{64 + self.worker.index}.{self.turn % 8}.{1 + self.number % 32}", 0))
        code = one.connect_ex(self.worker.target)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        self.socket = one
        self.speaks = DIALECTS[self.dialect]()
        self.rest = b""
        self.is_asked = False
        self.is_half_closed = False
        self.worker.watch(self, select.EPOLLOUT)

    def on_event(self):
        tally = self.account.tally
        try:
            if not self.is_asked:
                code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code))
                self.socket.send(self.speaks.request(self.account))
                self.is_asked = True
                self.worker.change(self, select.EPOLLIN)
                self.worker.plan_break(self)
                return
            piece = self.socket.recv(1 << 18)
            if not piece:
                raise Ended("end")
            self.rest, answer = self.speaks.read(self.account, self.rest + piece)
            if answer and not self.is_half_closed:
                self.socket.send(answer)
        except Ended as ended:
            tally.counts[f"ended: {ended}"] += 1
            self.leave()
        except BlockingIOError:
            pass
        except OSError as error:
            tally.counts[f"ended: {errno.errorcode.get(error.errno, error)}"] += 1
            self.leave()
        except (Broken, ValueError, KeyError, IndexError) as error:
            tally.problem("unreadable", f"{self.account.topic}: {error!r}")
            self.leave()

    def break_off(self, kind):
        self.account.tally.counts[kind] += 1
        if kind == "kill":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.leave()
        elif kind == "half-close":
            self.is_half_closed = True
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                # It is over already; the event that says so is on its way.
                return
            self.worker.plan(FORGOTTEN, self, "forgotten")
        else:
            self.worker.change(self, 0)
            self.worker.plan(random.uniform(0.2, self.worker.stall), self, "go on")

    def leave(self):
        """The connection is over; another is made in a while."""
        self.worker.unwatch(self)
        self.socket.close()
        self.socket = None
        self.turn += 1
        self.worker.plan(0.05 if self.worker.is_over else random.uniform(0, self.worker.away), self, "connect")

    def has_peer(self):
        """Whether the kernel still has the other end. Where it has not, the server gave this connection up, and its reset was
        thrown away: behind a receive buffer that was too small for what came, it is beyond the window. Only who listens for
        a sign of life notices that; these do not, and are told so."""
        ours, theirs = (f"{socket.inet_aton(host)[::-1].hex()}:{port:04x}".upper()
                        for host, port in (self.socket.getsockname(), self.socket.getpeername()))
        with open("/proc/net/tcp") as table:
            return any(line.split()[1:3] == [theirs, ours] for line in table)

    def leave_unheard(self):
        self.account.tally.counts["ended: by a reset that was never heard"] += 1
        self.leave()

    def on_time(self, what):
        if what == "connect":
            try:
                self.connect()
            except OSError as error:
                self.account.tally.problem("no_connection", str(error))
        elif what == "go on":
            self.worker.change(self, select.EPOLLIN)
            self.worker.plan_break(self)
        elif what == "forgotten" and not self.has_peer():
            self.leave_unheard()
        elif what == "forgotten":
            self.account.tally.problem("forgotten", f"{self.account.topic}: half-closed and not ended")
            self.leave()
        elif not self.worker.is_over:
            self.break_off(what)


class Worker:
    """Some subscribers of each dialect, each with a topic in turn."""

    def __init__(self, index, target, args, topics):
        self.index, self.target = index, target
        self.break_every, self.stall, self.away = args.break_every, args.stall, args.away
        self.is_over = False
        self.tallies = {dialect: Tally() for dialect in DIALECTS}
        self.poll = select.epoll()
        self.by_number = {}
        self.timers = []
        self.order = 0
        numbers = range(index, args.subscribers, args.workers)
        self.subscribers = [Subscriber(self, number, dialect, topics[number % len(topics)])
                            for number in numbers for dialect in DIALECTS]

    def watch(self, subscriber, events):
        number = subscriber.socket.fileno()
        self.by_number[number] = subscriber
        self.poll.register(number, events)

    def change(self, subscriber, events):
        self.poll.modify(subscriber.socket.fileno(), events)

    def unwatch(self, subscriber):
        number = subscriber.socket.fileno()
        self.poll.unregister(number)
        del self.by_number[number]

    def plan(self, seconds, subscriber, what):
        self.order += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self.order, subscriber.turn, subscriber, what))

    def plan_break(self, subscriber):
        if not self.is_over:
            self.plan(random.expovariate(1 / self.break_every), subscriber, random.choice(BREAKS))

    def turn(self):
        """Whatever happens within a while."""
        now = time.monotonic()
        wait = min(0.1, max(0, self.timers[0][0] - now)) if self.timers else 0.1
        for number, events in self.poll.poll(wait, 512):
            subscriber = self.by_number.get(number)
            if subscriber is None:
                continue
            # A stalled one is told of errors, too, and does not look before its time.
            if events & (select.EPOLLIN | select.EPOLLOUT) or subscriber.is_half_closed:
                subscriber.on_event()
            elif not subscriber.is_asked or events & (select.EPOLLERR | select.EPOLLHUP):
                self.on_error(subscriber)
        now = time.monotonic()
        while self.timers and self.timers[0][0] <= now:
            _, _, turn, subscriber, what = heapq.heappop(self.timers)
            if turn == subscriber.turn:
                subscriber.on_time(what)

    def on_error(self, subscriber):
        subscriber.account.tally.counts["given up by the server"] += 1
        subscriber.leave()

    def delivered(self):
        return sum(tally.counts["delivered"] for tally in self.tallies.values())

    def miss_resets(self, last):
        """Those that still wait come back if there is nobody left whom they wait for."""
        for one in self.subscribers:
            if one.socket and one.is_asked and not one.account.is_at(last[one.account.topic]) and not one.has_peer():
                one.leave_unheard()

    def has_all(self, last):
        return all(one.account.is_at(last[one.account.topic]) for one in self.subscribers)

    def end_breaks(self):
        """Everybody reads on and comes back."""
        self.is_over = True
        for subscriber in self.subscribers:
            if subscriber.socket and subscriber.is_asked:
                self.change(subscriber, select.EPOLLIN)


def run(pipe, index, target, args, topics):
    """A process: `subscribed` when all are, then until it is told the last number of each topic."""
    worker = Worker(index, target, args, topics)
    for at, subscriber in enumerate(worker.subscribers):
        worker.plan(at * 0.0005, subscriber, "connect")
    deadline = time.monotonic() + args.settle
    while any(one.account.epoch is None for one in worker.subscribers) and time.monotonic() < deadline:
        worker.turn()
    pipe.send("subscribed")
    while not pipe.poll():
        worker.turn()
    last = pipe.recv()
    worker.end_breaks()
    deadline, seen, looked = time.monotonic() + args.settle, worker.delivered(), False
    while time.monotonic() < deadline and not worker.has_all(last):
        worker.turn()
        if worker.delivered() > seen:
            deadline, seen, looked = time.monotonic() + args.settle, worker.delivered(), False
        if not looked and time.monotonic() > deadline - args.settle / 2:
            looked = True
            worker.miss_resets(last)
    # What comes twice may come now.
    deadline = time.monotonic() + args.quiet
    while time.monotonic() < deadline:
        worker.turn()
    for subscriber in worker.subscribers:
        subscriber.account.close(last[subscriber.account.topic])
    pipe.send({name: (collections.Counter(tally.counts), tally.problems) for name, tally in worker.tallies.items()})
