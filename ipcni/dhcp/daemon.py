"""What the daemon does: a lease for each attachment, kept by a client of its own until it is released (IPAM sheet 4.4).

One thread reads what the clients report, one looks after leases that end or lose their pods, each call has one of its own. The table is
guarded by `_changed`; nothing is run while it is held.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping

import msgspec

from ipcni.dhcp import calls, client, lease
from ipcni.dhcp.client import Client, Options
from ipcni.dhcp.lease import Lease, Report, Store, now
from ipcni.dhcp.pods import Pods, alive
from ipcni.dhcp.rpc import Args
from ipcni.errors import CniError
from ipcni.protocol.request import Request
from ipcni.protocol.result import Result
from ipcni.settings import Settings
from ipcni.shell.process import search_path

NO_MORE_TRIES = "no more tries"
_NO_NAMESPACE = "the namespace is gone"
_LOOK = 2.0  # seconds between looks at all leases
_GOODBYE = 2.0  # seconds for telling a server
_LATE = 30.0  # seconds for renewing a lease that ran out while there was no daemon
Log = Callable[[str], None]


class Held:
    """An attachment's place in the table: there from the first DISCOVER until the release is through."""

    def __init__(self, kept: Lease) -> None:
        self.lease = kept
        self.client: Client | None = None
        self.fault: CniError | None = None  # why there will be no lease
        self.leaving = False
        self.orphaned = False  # its client has ended
        self.doubted = False  # somebody wants to know whether its link is still there


class Daemon:
    """The table of leases. `hostprefix` comes before every namespace; `env` is the daemon's environment."""

    def __init__(self, settings: Settings, env: Mapping[str, str], options: Options, hostprefix: str, log: Log) -> None:
        self._options = options
        self._hostprefix = hostprefix
        self._log = log
        self._path = search_path(env)
        self._pods = Pods(settings, env)
        self._store = Store(os.path.join(settings.run_dir, "dhcp"))
        self._changed = threading.Condition()
        self._table: dict[tuple[str, str, str], Held] = {}
        self._clients: dict[int, Held] = {}
        self._started = 0
        self._reports, self._out = os.pipe()
        self._udhcpc = client.udhcpc(self._pods.has)

    # -- the surroundings

    def missing(self) -> str:
        """The tool that this node lacks, or the empty text."""
        lacking = [tool for tool in client.TOOLS if not self._pods.has(tool)]
        return next(iter(lacking), "" if self._udhcpc else "udhcpc")

    def start(self) -> None:
        """Goes on with the leases of the daemon before, and has threads look after all of them."""
        for kept in self._store.all():
            self._resume(kept)
        for work in (self._listen, self._look_after):
            threading.Thread(target=work, daemon=True).start()

    def stop(self) -> None:
        """Stops all clients; the leases stay for the next daemon."""
        with self._changed:
            everyone = list(self._table.values())
            for held in everyone:
                held.leaving = True
        stopping = [threading.Thread(target=held.client.stop) for held in everyone if held.client]
        for each in stopping:
            each.start()
        for each in stopping:
            each.join()
        self._pods.close()

    # -- calls

    def perform(self, method: str, args: Args) -> Result | None:
        """One call of a plugin. Raises CniError, and LookupError for a method that isn't one."""
        match method:
            case "DHCP.Allocate":
                return self.allocate(calls.request("ADD", args, self._hostprefix))
            case "DHCP.Release":
                req = calls.request("DEL", args, self._hostprefix)
                self.release((req.network, req.container_id, req.ifname))
            case "DHCP.GC":
                self.collect(calls.request("GC", args, self._hostprefix))
            case "DHCP.Status":
                if tool := self.missing():
                    raise CniError(f"this node has no {tool}")
            case _:
                raise LookupError(method)
        return None

    def allocate(self, req: Request) -> Result:
        """The lease that the attachment has, or a new one. Raises CniError."""
        key = (req.network, req.container_id, req.ifname)
        with self._changed:
            if (held := self._table.get(key)) and not alive(held.lease):  # and nobody has looked since
                self._leave(held, _NO_NAMESPACE)
            while (held := self._table.get(key)) and held.leaving:
                self._changed.wait()
            mine = held is None
            if held is None:
                held = self._table[key] = Held(calls.wanted(req))
        try:
            if mine:
                self._begin(held)
            with self._changed:
                self._changed.wait_for(lambda: held.fault or held.lease.terms, self._options.resend_timeout)
                if held.lease.terms and not held.fault:
                    held.doubted = not mine
                    self._changed.notify_all()
                    return lease.result(held.lease.terms, held.lease.priority)
                raise held.fault or CniError(NO_MORE_TRIES)
        except BaseException:
            if mine:
                self._leave(held)
            raise

    def _begin(self, held: Held) -> None:
        """Has the client ask. Raises CniError."""
        self._pods.prepare(held.lease)
        self._ask(held)

    def _ask(self, held: Held) -> None:
        """Starts the client. Raises CniError."""
        with self._changed:
            self._started += 1
            number = self._started
            self._clients[number] = held
        argv = client.words(self._udhcpc, held.lease, self._options)
        try:
            if not self._udhcpc:
                raise OSError("this node has no udhcpc")
            started = Client(argv, number, self._path, self._out, lambda words: self._ended(number, words))
        except OSError as error:
            with self._changed:
                del self._clients[number]
            raise CniError(f"cannot start the DHCP client: {error}") from error
        with self._changed:
            held.client = started
            late = held.leaving
        if late:
            started.stop()

    def release(self, key: tuple[str, str, str]) -> None:
        """Gives a lease back; one that isn't there has been. One that is being asked for won't be."""
        with self._changed:
            held = self._table.get(key)
            if held and not held.leaving:
                held.leaving = True
                held.fault = held.fault or CniError("released meanwhile")
                self._changed.notify_all()
            elif held:
                self._changed.wait_for(lambda: self._table.get(key) is not held)
                return
        if held:
            try:
                self._give_back(held)
            finally:
                self._gone(held)

    def collect(self, req: Request) -> None:
        """Releases what the network has beside its valid attachments."""
        valid = req.valid_attachments()
        with self._changed:
            keys = [key for key in self._table if key[0] == req.network and valid is not None and key[1:] not in valid]
        for key in keys:
            self.release(key)

    # -- the ends of a lease

    def _leave(self, held: Held, why: str = "") -> None:
        """Lets go of a lease without a word to the server."""
        with self._changed:
            if held.leaving:
                return
            held.leaving = True
            held.fault = held.fault or CniError(why or NO_MORE_TRIES)
            self._changed.notify_all()
        if why:
            self._log(f"{held.lease.title}: {why}")
        self._gone(held)

    def _give_back(self, held: Held) -> None:
        """Tells the server, by way of the leased address."""
        kept, running = held.lease, held.client
        given = kept.terms
        if running is None or given is None or not alive(kept):
            return
        with contextlib.suppress(CniError):
            if not self._pods.release(kept, given, lambda: running.release(_GOODBYE)):
                self._log(f"{kept.title}: {kept.ifname} is gone: the server keeps {given.address} until the lease ends")

    def _gone(self, held: Held) -> None:
        if held.client:
            held.client.stop()
        with self._changed:
            kept = held.lease
            self._store.remove(kept)
            key = (kept.network, kept.container_id, kept.ifname)
            if self._table.get(key) is held:
                del self._table[key]
            for number in [number for number, other in self._clients.items() if other is held]:
                del self._clients[number]
            self._changed.notify_all()

    # -- what clients report

    def _listen(self) -> None:
        with open(self._reports, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if said := lease.report(line):
                    self._heard(said)

    def _heard(self, said: Report) -> None:
        with self._changed:
            held = self._clients.get(said.client)
            if held is None:
                return
            if said.event == "deconfig" and held.client and held.client.number == said.client:
                held.client.quiet.set()
            if said.event == "nak":
                self._log(f"{held.lease.title}: server rejected request with Nak")
            if said.event in ("bound", "renew"):
                if held.client and held.client.number == said.client:
                    held.client.bound.set()
                if not held.leaving:
                    self._bound(held, said)
            self._changed.notify_all()

    def _bound(self, held: Held, said: Report) -> None:
        before = held.lease.terms
        try:
            given = lease.terms(said)
            held.lease = msgspec.structs.replace(held.lease, terms=given)
            self._store.write(held.lease)
        except CniError as error:
            held.fault = held.fault or (None if before else error)
        except OSError as error:
            self._log(f"{held.lease.title}: cannot be written down: {error}")
        else:
            if before and before.address != given.address:
                self._log(f"{held.lease.title}: the server has changed {before.address} to {given.address}, the pod hasn't")

    def _ended(self, number: int, words: str) -> None:
        with self._changed:
            held = self._clients.pop(number, None)
            if held is None or held.leaving:
                return
            if held.lease.terms is None:
                last = words.splitlines()[-1] if words else "without a word"
                held.fault = CniError(f"the DHCP client ended: {last}")
            held.orphaned = True
            self._changed.notify_all()

    # -- looking after leases

    def _look_after(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: any(held.doubted for held in self._table.values()), _LOOK)
                everyone = [held for held in self._table.values() if not held.leaving and held.lease.terms]
            for held in everyone:
                try:
                    self._look_at(held)
                except Exception as error:  # noqa: BLE001  # the other leases are to be kept all the same
                    self._log(f"{held.lease.title}: {error}")
            time.sleep(0.05)

    def _look_at(self, held: Held) -> None:
        with self._changed:
            doubted, held.doubted = held.doubted, False
            orphaned = held.orphaned
            kept, given = held.lease, held.lease.terms
        if given is None:
            return
        if not alive(kept):
            self._leave(held, _NO_NAMESPACE)
        elif (doubted or orphaned) and self._pods.link(kept) is None:
            self._leave(held, f"{kept.ifname} is gone")
        elif given.end and now() >= given.end:
            self._leave(held, f"the lease of {given.address} has ended")
            self._pods.down(kept)
        elif orphaned:
            held.orphaned = False
            try:
                self._ask(held)
            except CniError:
                held.orphaned = True
                raise
        elif given.renew and now() >= given.renew and held.client:
            with self._changed:
                if held.lease is kept:
                    held.lease = msgspec.structs.replace(kept, terms=msgspec.structs.replace(given, renew=0))
            held.client.renew()

    def _resume(self, kept: Lease) -> None:
        if kept.terms is None or not alive(kept):
            self._store.remove(kept)
            return
        if kept.terms.end:
            end = max(kept.terms.end, now() + _LATE)
            kept = msgspec.structs.replace(kept, terms=msgspec.structs.replace(kept.terms, end=end, renew=0))
        held = self._table[(kept.network, kept.container_id, kept.ifname)] = Held(kept)
        try:
            self._ask(held)
        except CniError as error:
            held.orphaned = True
            self._log(f"{kept.title}: {error}")
