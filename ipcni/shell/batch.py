"""Coalescing: neighbouring steps of one tool in one namespace become one process. Pure text in, text out.

The plan stays the truth: order never changes, a batch keeps its list of steps, and an error is brought back to the step that
made it.
"""

import re
from collections.abc import Iterator

import msgspec

from ipcni.model import HERE, Netns, Plan, Step, by_name, command_words

# What most requests give something to read: `ipcni serve` has them started beforehand.
USUAL = (("ip", "-batch", "-"), ("iptables-restore", "--noflush", "-w", "10"))
FILES = ("printf", "mkdir", "rm", "mv", "sync", "cat")
_PLAIN = re.compile(r"[^\s#\"'\\]+")
_FAILED_LINE = re.compile(r"^Command failed -:(\d+)", re.MULTILINE)


class Batch(msgspec.Struct, frozen=True):
    """Steps that run as one process (or, for files, as system calls of this one).

    `carrier` is "ip", "tc", "bridge", "iptables", "nft", "file" or "exec" (one step, as it is).
    """

    carrier: str
    steps: Plan

    @property
    def netns(self) -> Netns | None:
        return self.steps[0].netns

    @property
    def argv(self) -> tuple[str, ...]:
        """The words of the process, namespace included."""
        first, netns = self.steps[0], self.netns
        match self.carrier:
            case "ip" | "tc" | "bridge":
                inner: tuple[str, ...] = (self.carrier, "-batch", "-")
            case "iptables":
                inner = (f"{first.argv[0]}-restore", "--noflush", *first.argv[1:3])
            case "nft":
                inner = ("nft", "-f", "-")
            case _:
                return first.words
        return command_words(inner, netns)

    @property
    def stdin(self) -> str:
        """What the process reads, or the empty text."""
        match self.carrier:
            case "ip" | "tc" | "bridge":
                return "".join(" ".join(step.argv[1:]) + "\n" for step in self.steps)
            case "iptables":
                return "".join(_restore_lines(self.steps))
            case "nft":
                return "".join(" ".join(step.argv[1:]) + "\n" for step in self.steps)
        return ""


def carrier(step: Step) -> str:
    """Which kind of process can take the step along with its neighbours."""
    if step.unless or step.until is not None:
        return "file" if step.argv[0] == "cat" else "exec"
    match step.argv:
        case ("ip" | "tc" | "bridge" as tool, *words) if _one_line(words):
            return tool
        case ("sysctl", "-qw", *_):
            return "file"
        case ("iptables" | "ip6tables", "-w", _, "-t", *_):
            return "iptables"
        case ("nft", "add" | "delete" | "flush" | "insert", *_):
            return "nft"
        case (tool, *_) if tool in FILES and step.netns is None:
            return "file"
    return "exec"


def _one_line(words: list[str]) -> bool:
    """Whether a tool's words can stand in its batch: they are plain, and the first of them is no option of the tool itself."""
    return not words[0].startswith("-") and HERE not in words and all(_PLAIN.fullmatch(word) for word in words)


def coalesce(plan: Plan) -> tuple[Batch, ...]:
    """The plan as processes, in order; only neighbours are joined."""
    return tuple(_coalesced(plan))


def _coalesced(plan: Plan) -> Iterator[Batch]:
    pending: list[Step] = []
    kind: tuple[object, ...] = ()
    for step in plan:
        tool = step.argv[0] if step.argv[0].endswith("tables") else ""
        wanted = (carrier(step), step.netns, tool)
        if pending and (wanted != kind or wanted[0] == "exec"):
            yield _batch(kind, pending)
            pending = []
        kind = wanted
        pending.append(step)
    if pending:
        yield _batch(kind, pending)


def _batch(kind: tuple[object, ...], steps: list[Step]) -> Batch:
    name = str(kind[0])
    if len(steps) == 1 and name in ("ip", "tc", "bridge", "iptables", "nft"):
        name = "file" if _setting(steps[0].argv) else "exec"  # nothing to join: the very command that is printed
    return Batch(name, tuple(steps))


def _setting(argv: tuple[str, ...]) -> bool:
    """Whether a command only sets what a link has one of, as sysctl does: that it is up, or its MTU."""
    match argv:
        case ("ip", "link", "set", "dev", link, "up" | "down"):
            return by_name(link)
        case ("ip", "link", "set", "dev", link, "mtu", number):
            return by_name(link) and number.isdecimal() and len(number) < 10
    return False


def _restore_lines(steps: Plan) -> Iterator[str]:
    table = ""
    for step in steps:
        words = step.argv[3:]
        at = words.index("-t")
        if words[at + 1] != table:
            if table:
                yield "COMMIT\n"
            table = words[at + 1]
            yield f"*{table}\n"
        rest = words[:at] + words[at + 2 :]
        yield " ".join(_restore_word(word) for word in rest) + "\n"
    yield "COMMIT\n"


def _restore_word(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def guilty(steps: Plan, stderr: str) -> int:
    """Which of the steps, counted from 0, an `ip -batch` or `tc -batch` complains of.

    A malformed word ends the tool without a word on the line: then it is the step that holds it, or the first.
    """
    match = _FAILED_LINE.search(stderr)
    if match and int(match[1]) <= len(steps):
        return int(match[1]) - 1
    return next((at for at, step in enumerate(steps) if _holds(step, stderr)), 0)


def _holds(step: Step, stderr: str) -> bool:
    return any(f'"{word}"' in stderr or f"'{word}'" in stderr for word in step.argv)
