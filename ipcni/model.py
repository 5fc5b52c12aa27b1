"""The nouns that cross module borders. Frozen, and importing nothing of ours."""

import os
import shlex
from collections.abc import Iterable
from typing import Literal

import msgspec

Family = Literal[4, 6]

HERE = "/proc/$$/ns/net"  # the node's own namespace, to a command in a pod's: the shell that runs the command is of the node

NAMED_NETNS = "/run/netns"


class Netns(msgspec.Struct, frozen=True):
    """A network namespace, by the path the runtime gave in CNI_NETNS."""

    path: str

    @property
    def name(self) -> str | None:
        """What `ip -n` and `ip netns exec` call it, or None where only the path will do."""
        folder, name = os.path.split(self.path)
        return name if name and folder in (NAMED_NETNS, "/var/run/netns") else None

    @property
    def words(self) -> tuple[str, ...]:
        """The words that run a command in this namespace when put in front of it."""
        if self.name:
            return ("ip", "netns", "exec", self.name)
        return ("nsenter", f"--net={self.path}")


def by_name(link: str) -> bool:
    """Whether an ioctl (netdevice(7)) takes a link's name for itself. Of more than 15 bytes, or behind a colon, it would take the beginning."""
    return len(os.fsencode(link)) <= 15 and ":" not in link


_REACH_IN = ("ip", "bridge", "tc")


def command_words(argv: tuple[str, ...], netns: Netns | None) -> tuple[str, ...]:
    """A command as it is run in a namespace: by the tool's own `-n` where it has one, else with the prefix."""
    if netns is None:
        return argv
    if netns.name and argv[0] in _REACH_IN:
        return (argv[0], "-n", netns.name, *argv[1:])
    return netns.words + argv


def line(words: Iterable[str]) -> str:
    """Words as a line of shell; of all their characters only HERE's dollars mean something."""
    return " ".join(word if word == HERE else shlex.quote(word) for word in words)


class Step(msgspec.Struct, frozen=True):
    """One command of a script, and what its template says about it.

    `argv` are the words without the namespace prefix; `into` is the file that takes the output of a `printf` (mode
    0600; with `new` it must not exist yet). `unless` is a question whose success makes the step unnecessary, `undo` takes
    it back, `ok` are pieces of stderr that make a failure fine, `until` is the output to wait for, `within` seconds at
    most. `why` is the comment above, `error` how a failure is reported, `where` the template and the number in it.
    """

    argv: tuple[str, ...]
    netns: Netns | None = None
    into: str = ""
    new: bool = False
    unless: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    ok: tuple[str, ...] = ()
    until: str | None = None
    within: float = 0
    error: str = ""
    why: str = ""
    where: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The whole command: namespace prefix and words."""
        return command_words(self.argv, self.netns)

    @property
    def command(self) -> str:
        """The command as one line that can be pasted into a shell, without its guards."""
        text = line(self.words)
        if not self.into:
            return text
        noclobber = "set -C; " if self.new else ""
        return f"(umask 077; {noclobber}{text} > {shlex.quote(self.into)})"

    def shell(self) -> str:
        """The command with its guards (unless, until, ok), as one line of POSIX shell."""
        text = self.command
        if self.until is not None:
            tries = max(1, round(self.within / 0.05))
            text = f'for try in $(seq {tries}); do [ "$({text})" = {shlex.quote(self.until)} ] && break; sleep 0.05; done'
        if self.unless:
            text = f"{line(command_words(self.unless, self.netns))} >/dev/null 2>&1 || {text}"
        if self.ok:
            text += " || true"
        return text


Plan = tuple[Step, ...]


class Done(msgspec.Struct, frozen=True):
    """A process that ended: exit `status` (127: not found, 124: out of time), what it printed, how long it took in `ms`."""

    status: int
    out: str
    err: str
    ms: float


class Attachment(msgspec.Struct, frozen=True):
    """What one pod interface is known by (CNI spec 1.1.0, section 2, "Attachment Parameters")."""

    network: str
    container_id: str
    ifname: str
