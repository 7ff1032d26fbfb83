"""The running node: identities with their loops, and around them what an operator needs.

This thread never touches a running core. It posts commands through the loops' mailboxes and reads counters that only
the loops write. Everything here waits in one selector: signals, control socket, metrics page, netlink, timers.
"""

import collections
import contextlib
import copy
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from srpnode import __version__, atomic, control, identity, info, interfaces, journal, metrics, service
from srpnode import config as configuration
from srpnode.blocks import BlockError
from srpnode.config import Loaded
from srpnode.journal import Journal, Level
from srpnode.known import KnownPeers
from srpnode.net import sockets
from srpnode.policy import Policy
from srpnode.reflection import Reflection
from srpnode.schema import Access, Config, Limits
from srpnode.streams import StreamServer
from srpnode.watch import Watch
from srpnode.worker import StartError, Worker, rules_of

TURN_S = 1.0  # longest sleep: timers are that exact
GREETING_TURN_S = 0.1  # while peers from before the start are greeted
STOP_S = 0.8  # all loops must have ended by then
STATUS_LINE_S = 10.0
UPKEEP_S = 1.0
SAVE_S = 60.0
OVERVIEW_S = 5.0  # how long an overview of the peers is given out again
OVERVIEW_CLUSTERS = 10
BLOCK_S = 3_600.0
BEAT_TIMEOUT_S = 2.0
BEAT_S = 5.0  # how often each loop must show that it handles datagrams; oftener when a watchdog asks for it


def run(loaded: Loaded, path: str | None) -> int:
    """Runs the node in the foreground until SIGTERM or SIGINT; the exit status."""
    config = loaded.config
    tell = Journal(config.log.level, config.log.addresses)
    try:
        with contextlib.ExitStack() as stack:
            daemon = Daemon(loaded, path, tell, stack)
            daemon.serve()
    except (StartError, identity.StateError, control.ControlError, metrics.MetricsError) as error:
        tell.tell(journal.FAILED, str(error)) if tell.structured else print(error, file=sys.stderr)
        return 1
    return daemon.status


class Daemon:
    """One process. Whatever it opens is closed by the stack that it was given, in reverse order."""

    def __init__(self, loaded: Loaded, path: str | None, tell: Journal, stack: contextlib.ExitStack) -> None:
        """Starts everything; ready to serve when it returns. Raises StartError and the errors of its parts."""
        self.config = loaded.config
        self.path = path
        self.tell = tell
        self.status = 0
        self._stopping = ""
        self._overview: dict[str, Any] = {}
        self._overview_until = 0.0
        self._started = time.monotonic()
        watchdog_s = service.watchdog_s()
        self._beat_s = min(BEAT_S, watchdog_s / 3) if watchdog_s else BEAT_S
        self._next_beat = 0.0
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._signals(stack)
        self._files = loaded.files
        identity.prepare(self.config.state_dir)
        stack.enter_context(identity.lock(self.config.state_dir, self.config.control.socket))
        atomic.sweep(self.config.state_dir)
        keys = [identity.load_or_make(self.config.state_dir, listen.name) for listen in self.config.listen]

        self._netlink: interfaces.Netlink | None = None
        self.addresses = interfaces.Snapshot((), "")
        self._open_netlink(stack)

        self._control = control.ControlServer(
            self._selector,
            control.listen(self.config.control.socket),
            self.commands(),
            lambda text: tell.tell(journal.FAILED, text),
        )
        stack.callback(self._control.close)
        self._metrics: StreamServer | None = None
        if self.config.metrics.listen:
            self._metrics = metrics.serve(
                self._selector, self.config.metrics.listen, self.status_now, lambda text: tell.tell(journal.FAILED, text)
            )
            stack.callback(self._metrics.close)

        self._reflection: Reflection | None = None
        if self.config.peer:
            self._reflection = Reflection(self._selector, self.config.peer)
            stack.callback(self._reflection.close)
        self.policy = Policy(self.config.state_dir, tell)
        stack.callback(self.policy.volume.save)
        limits_and_rules = self._effective(self.config)
        self.watch = Watch(tell)
        self.workers: list[Worker] = []
        stack.callback(self._end_workers)
        own = {key.peer_id.hex() for key in keys}
        self._known = [KnownPeers(self.config.state_dir, listen.name, own, tell) for listen in self.config.listen]
        stack.callback(self._save_peers)
        kept = sockets.Inherited(service.stored())
        for listen, key in zip(self.config.listen, keys, strict=True):
            self.workers.append(Worker(self.config, listen, key, keys, self.addresses, kept, limits_and_rules))
        self._use_filter()
        for address, port in kept.close_rest():  # not configured any more
            service.forget(address, port)
        for worker in self.workers:
            worker.start()
            worker.follow(self.addresses)
        for worker in self.workers:
            worker.check(BEAT_TIMEOUT_S)
        self._announce()
        self._plan_greetings()

    # ---- start ----

    def _signals(self, stack: contextlib.ExitStack) -> None:
        """Signals become bytes in a socket pair, so that the selector wakes up for them."""
        reader, writer = socket.socketpair()
        stack.enter_context(reader)
        stack.enter_context(writer)
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._selector.register(reader, selectors.EVENT_READ, lambda _mask: self._on_signals(reader))

    def _on_signals(self, reader: socket.socket) -> None:
        for number in reader.recv(64):
            if number == signal.SIGHUP:
                with contextlib.suppress(control.ControlError):
                    self.reload({})
            else:
                self._stopping = signal.Signals(number).name

    def _open_netlink(self, stack: contextlib.ExitStack) -> None:
        try:
            netlink = interfaces.Netlink()
        except interfaces.InterfacesError as error:
            self.tell.tell(journal.ADDRESS, f"changes of addresses will not be noticed: {error}")
            self.addresses = interfaces.snapshot()
            return
        stack.callback(netlink.close)
        self._netlink = netlink
        self._selector.register(netlink, selectors.EVENT_READ, lambda _mask: self._on_netlink())
        self.addresses = interfaces.snapshot()

    def _use_filter(self) -> None:
        for worker in self.workers:
            problem = worker.use_filter(self.config.limits.kernel_filter == "on")
            if problem:
                self.tell.tell(journal.KERNEL, problem)

    def _adapt_filter(self) -> None:
        for worker in self.workers:
            wanted = worker.wants_filter()
            if worker.filter.startswith("refused") or wanted == (worker.filter == "on"):
                continue
            problem = worker.use_filter(wanted)
            words = "a flood of what is no packet overran the receive buffer: the kernel drops it from now on"
            if not wanted:
                words = "the flood of what is no packet is over: the kernel's filter is off"
            self.tell.tell(journal.KERNEL, problem or f"{worker.listen.name}: {words}")

    def _announce(self) -> None:
        entries = self.entries()
        if self.tell.structured:
            for entry in entries:
                text = f"{entry['address']}:{entry['port']}, probe port {entry['probePort']}, peerId {entry['peerId']}"
                self.tell.tell(journal.IDENTITY, f"{entry['name']}: {text}", fields={"peer": entry["peerId"]})
        else:
            print("For the list of indexed peers of an application:", info.text(entries), sep="\n", flush=True)
        for remark in info.remarks(entries):
            self.tell.tell(journal.ADDRESS, remark)
        self.tell.tell(
            journal.READY,
            f"srpnode {__version__} serves {len(entries)} {'identity' if len(entries) == 1 else 'identities'} "
            f"after {time.monotonic() - self._started:.2f} s, configuration: "
            f"{', '.join(self._files) or 'embedded defaults'}",
        )
        service.ready(self._status_line())

    def _plan_greetings(self) -> None:
        for worker, known in zip(self.workers, self._known, strict=True):
            number = known.read(self.config.limits.kept_peers, self.config.keep_alive / 2)
            if number:
                text = f"{worker.listen.name}: greets {number} peers known from before"
                self.tell.tell(journal.STATE, text, level=Level.INFO)

    # ---- while it runs ----

    def serve(self) -> None:
        """Serves until a signal or until a loop has ended by itself."""
        save_s = min(SAVE_S, 2 * self.config.keep_alive)  # within it every live peer has proved itself again
        next_line = next_upkeep = 0.0
        next_save = time.monotonic() + save_s
        while not self._stopping:
            greeting = any(known.waiting for known in self._known)
            for key, mask in self._selector.select(GREETING_TURN_S if greeting else min(TURN_S, self._beat_s)):
                key.data(mask)
            self._greet()
            self._beat_when_due()
            now = time.monotonic()
            if now >= next_line:
                next_line = now + STATUS_LINE_S
                service.status(self._status_line())
                self._control.sweep()
                if self._metrics:
                    self._metrics.sweep()
            if now >= next_upkeep:
                next_upkeep = now + UPKEEP_S
                self._upkeep()
            if now >= next_save:
                next_save = now + save_s
                self.policy.volume.save()
                self._save_peers()
        service.stopping()
        self.tell.tell(journal.STOP, f"stops: {self._stopping}")

    def _beat_when_due(self) -> None:
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + self._beat_s
            self._beat(min(BEAT_TIMEOUT_S, self._beat_s))

    def _peers_of(self, worker: Worker) -> Iterator[dict[str, Any]]:
        """All peers of one identity; a long list must not starve the watchdog. Raises StartError."""
        for row in worker.each_peer():
            self._beat_when_due()
            yield row

    def _beat(self, timeout_s: float) -> None:
        """Every loop must handle datagrams, or the watchdog is not fed."""
        fine = True
        for worker in self.workers:
            if not worker.loop.alive():
                self.tell.tell(
                    journal.FAILED, f"{worker.listen.name}: the loop ended: {worker.loop.failure or 'unknown'}"
                )
                self._stopping, self.status = "a loop ended", 1
                fine = False
                continue
            try:
                worker.check(timeout_s)
            except StartError as error:
                self.tell.tell(journal.STUCK, str(error))
                fine = False
        if fine:
            service.alive()

    def _upkeep(self) -> None:
        """What is due about once a second."""
        self.watch.look(self.workers)
        if self.config.limits.kernel_filter == "auto":
            self._adapt_filter()
        try:
            self._reflect()
        except StartError as error:
            self.tell.tell(journal.STUCK, str(error))
        if self.policy.changed(self.config, sum(worker.traffic() for worker in self.workers)):
            try:
                self._narrow(self.config)
            except (control.ControlError, StartError) as error:
                self.tell.tell(journal.FAILED, str(error))

    def _greet(self) -> None:
        for worker, known in zip(self.workers, self._known, strict=True):
            for peer in known.due():
                try:
                    worker.greet(peer.address, peer.port)
                except StartError as error:
                    self.tell.tell(journal.STUCK, str(error))

    def _save_peers(self) -> None:
        for worker, known in zip(self.workers, self._known, strict=False):  # a start that failed has fewer workers
            with contextlib.suppress(StartError):  # the heartbeat tells it; the file stays as it is
                known.write(self._peers_of(worker), self.config.limits.kept_peers)

    def _effective(self, config: Config) -> tuple[Limits, Access]:
        try:
            return self.policy.effective(config)
        except BlockError as error:
            raise control.ControlError(str(error)) from None

    def _narrow(self, config: Config) -> None:
        """Gives all cores the limits and rules of this moment. Raises ControlError (nothing changed) or StartError."""
        commands = rules_of(*self._effective(config))
        for worker in self.workers:
            worker.apply(commands)

    def _on_netlink(self) -> None:
        assert self._netlink is not None
        if not self._netlink.changed():
            return
        before, self.addresses = self.addresses, interfaces.snapshot()
        if before == self.addresses:
            return
        gone = {item.address for item in before.addresses} - {item.address for item in self.addresses.addresses}
        new = {item.address for item in self.addresses.addresses} - {item.address for item in before.addresses}
        if gone or new:
            parts = [f"{', '.join(sorted(some))} {word}" for some, word in ((gone, "gone"), (new, "new")) if some]
            self.tell.tell(journal.ADDRESS, f"addresses of this machine: {'; '.join(parts)}", level=Level.NOTICE)
        if self._reflection:
            self._reflection.ask_again()
        try:
            for worker in self.workers:
                worker.reflect()
            self._follow_addresses()
        except StartError as error:
            self.tell.tell(journal.STUCK, str(error))

    def _reflect(self) -> None:
        """Looks at ourselves through other peers: their pongs, and with nat = "auto" what the cores found out."""
        follow = self._reflection is not None and self._reflection.due()
        for worker in self.workers:
            if worker.reflected():
                kind = info.NAT_NAMES.get(worker.nat_type, "of no known kind")
                text = f"{worker.listen.name}: NAT type {worker.nat_type}, {kind}"
                self.tell.tell(journal.ADDRESS, text, level=Level.NOTICE)
                follow = True
        if follow:
            self._follow_addresses()

    def _follow_addresses(self) -> None:
        seen = self._reflection.seen if self._reflection else ""
        for worker in self.workers:
            worker.follow(self.addresses)
            old = worker.advertised
            if worker.advertise(self.addresses, seen):
                self.tell.tell(
                    journal.ADDRESS,
                    f"{worker.listen.name}: advertised address is now {worker.advertised}, it was {old}; applications "
                    "that list this node need the new one",
                )

    def _end_workers(self) -> None:
        deadline = time.monotonic() + STOP_S
        for worker in self.workers:
            worker.stop(max(deadline - time.monotonic(), 0.05))

    # ---- what can be asked ----

    def commands(self) -> dict[str, control.Command]:
        """The commands of the control socket."""

        def plain(answer: Callable[[], Any]) -> control.Command:
            return lambda _request: answer()

        return {
            "info": plain(self.entries),
            "status": plain(self.status_now),
            "peers": plain(self.peers_now),
            "overview": plain(self.overview),
            "reload": self.reload,
            "block": self.block,
            "unblock": self.unblock,
            "blocks": plain(lambda: self.policy.blocks.rows()),
        }

    def entries(self) -> list[dict[str, Any]]:
        """The identities, as an application lists them."""
        return [worker.entry() for worker in self.workers]

    def status_now(self) -> dict[str, Any]:
        """Everything counted so far."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(time.monotonic() - self._started, 3),
            "identities": [worker.status() for worker in self.workers],
            "views": self._reflection.views if self._reflection else {},
            "volume": {
                "month": self.policy.volume.month,
                "used": self.policy.volume.used,
                "quota": self.config.limits.volume_bytes_per_month,
            },
            "blocks": len(self.policy.blocks.rows()),
        }

    def peers_now(self) -> list[dict[str, Any]]:
        """All peers that the identities know."""
        try:
            return [row for worker in self.workers for row in self._peers_of(worker)]
        except StartError as error:
            raise control.ControlError(str(error)) from None

    def overview(self) -> dict[str, Any]:
        """Peers by NAT type and the clusters with most of them; not counted anew more often than every few seconds."""
        now = time.monotonic()
        if now >= self._overview_until:
            rows = self.peers_now()
            nat = collections.Counter(str(row["natType"]) for row in rows)
            clusters = collections.Counter(cluster for row in rows for cluster in row["clusters"])
            self._overview = {"natTypes": dict(nat), "clusters": dict(clusters.most_common(OVERVIEW_CLUSTERS))}
            self._overview_until = now + OVERVIEW_S
        return self._overview

    def block(self, request: dict[str, Any]) -> dict[str, Any]:
        """Refuses a prefix or cluster for a while. Raises ControlError."""
        blocks = self.policy.blocks
        try:
            block = blocks.add(str(request.get("what", "")), float(request.get("seconds", BLOCK_S)))
        except (BlockError, TypeError, ValueError) as error:
            raise control.ControlError(str(error)) from None
        try:
            self._narrow(self.config)
        except (StartError, control.ControlError) as error:
            blocks.remove(block.what)
            raise control.ControlError(str(error)) from None
        self.tell.tell(journal.BLOCK, f"{block.what} is blocked for {block.until_s - time.time():.0f} s")
        return {"what": block.what, "until": block.until_s}

    def unblock(self, request: dict[str, Any]) -> dict[str, Any]:
        """Ends a block before its time. Raises ControlError."""
        what = str(request.get("what", ""))
        try:
            found = self.policy.blocks.remove(what)
            self._narrow(self.config)
        except (BlockError, StartError) as error:
            raise control.ControlError(str(error)) from None
        if not found:
            raise control.ControlError(f"{what} is not blocked")
        self.tell.tell(journal.BLOCK, f"{what} is not blocked any more")
        return {"what": what}

    def _status_line(self) -> str:
        identities = [worker.status() for worker in self.workers]
        peers = sum(item["peers"].get("known", 0) for item in identities)
        packets = sum(item["cache"].get("packets", 0) for item in identities)
        drops = sum(sum(item["drops"].values()) for item in identities)
        got = sum(item["udp"].get("in_datagrams", 0) for item in identities)
        return f"{peers} peers, {packets} packets stored, {got} datagrams received, {drops} dropped"

    def reload(self, _request: dict[str, Any]) -> dict[str, list[str]]:
        """Reads the configuration again and takes over what can be: all of it or, with an error, nothing.

        Returns {"applied": keys, "restart": keys that need a restart}. Raises ControlError.
        """
        service.reloading()
        try:
            new = configuration.load(self.path).config
        except configuration.ConfigError as error:
            self.tell.tell(journal.REFUSED, f"the old configuration stays: {'; '.join(error.problems)}")
            raise control.ControlError(str(error)) from None
        finally:
            service.ready(self._status_line())
        applied, restart = configuration.changed(self.config, new)
        try:
            self._take_over(new)
        except (StartError, control.ControlError) as error:
            self.tell.tell(journal.REFUSED, f"the old configuration stays: {error}")
            raise control.ControlError(str(error)) from None
        text = f"applied: {', '.join(applied) or 'nothing'}"
        if restart:
            text += f"; needs a restart: {', '.join(restart)}"
        self.tell.tell(journal.RELOADED, text)
        return {"applied": applied, "restart": restart}

    def _take_over(self, new: Config) -> None:
        """Reloadable keys only; the others keep the values that this process started with."""
        candidate = copy.deepcopy(self.config)
        configuration.merge_reloadable(candidate, new)
        self._narrow(candidate)
        before, self.config = self.config, candidate
        if before.limits.kernel_filter != candidate.limits.kernel_filter:
            self._use_filter()
        for worker, listen in zip(self.workers, candidate.listen, strict=True):
            worker.listen = listen
        self.tell.level = journal.LEVELS[self.config.log.level]
        if self.tell.addresses.form != self.config.log.addresses:
            self.tell.addresses = journal.Addresses(self.config.log.addresses)
        self._follow_addresses()
