"""The daemon's hands in pods: what it looks at and changes there, one thing at a time."""

import threading
from collections.abc import Callable, Mapping

from ipcni.dhcp import lease
from ipcni.dhcp.lease import Lease, Terms
from ipcni.errors import CniError
from ipcni.model import Netns, Plan
from ipcni.settings import Settings
from ipcni.shell.iproute import Link
from ipcni.shell.render import render
from ipcni.shell.run import Runner
from ipcni.shell.shell import Shell


class Pods:
    """Links in namespaces. All raise StepFailed where a command fails."""

    def __init__(self, settings: Settings, env: Mapping[str, str]) -> None:
        self._settings, self._env = settings, env
        self._shell, self._busy = Shell(), threading.Lock()

    def close(self) -> None:
        self._shell.stop()

    def _runner(self) -> Runner:
        return Runner(self._settings, self._env, self._shell)

    def _do(self, plan: Plan) -> None:
        with self._busy:
            self._runner().do(plan)

    def has(self, tool: str) -> bool:
        """Whether there is such a program."""
        return self._runner().has(tool)

    def link(self, kept: Lease) -> Link | None:
        with self._busy:
            return self._runner().facts.link(kept.ifname, Netns(kept.netns))

    def prepare(self, kept: Lease) -> None:
        """Makes sure that there is a link that can be asked through. Raises CniError in the reference's words."""
        with self._busy:
            self._runner().facts.require_netns(Netns(kept.netns))
        link = self.link(kept)
        if link is None:
            raise CniError(f'error looking up "{kept.ifname}": Link not found')
        if not link.up:
            self._do(render("dhcp-daemon/up.sh.j2", pod=Netns(kept.netns), ifname=kept.ifname))

    def down(self, kept: Lease) -> None:
        self._do(render("dhcp-daemon/down.sh.j2", pod=Netns(kept.netns), ifname=kept.ifname))

    def release(self, kept: Lease, given: Terms, tell: Callable[[], None]) -> bool:
        """Has `tell` tell the server from the leased address. False where there is no link to do so."""
        link = self.link(kept)
        if link is None:
            return False
        there = link.up and any(each.text == given.address for each in link.addresses)
        words = {"pod": Netns(kept.netns), "ifname": kept.ifname, "address": given.address}
        if not there:
            self._do(render("dhcp-daemon/borrow.sh.j2", **words))
        tell()
        if not there:
            self._do(render("dhcp-daemon/return.sh.j2", **words))
        return True


def alive(kept: Lease) -> bool:
    """Whether the namespace is the one that the lease is for."""
    return bool(kept.space) and lease.space(kept.netns) == kept.space
