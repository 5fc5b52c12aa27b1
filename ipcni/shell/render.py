"""Templates to plans.

A template renders to a POSIX shell script of one command a line, without pipes, variables or conditions. What the machinery
has to know about a command stands in comments under it:

    #: undo COMMAND    takes it back when a later step fails (a lone flag, -D, replaces -A, -I or -N in the command)
    #: unless COMMAND  a question; where it succeeds the step is not needed (a lone flag again)
    #: ok TEXT         a failure whose stderr holds TEXT is fine
    #: until TEXT      repeat the command until this is all it prints (nothing: until it prints nothing) ...
    #: within SECONDS  ... but no longer than this
    #: new             the file after `>` must not exist yet
    #: error TEXT      how a failure is reported: "TEXT: what the tool said"; with a final full stop, TEXT alone

Every `{{ value }}` becomes exactly one shell word (a tuple: that many), whatever is in it.
"""

import contextlib
import functools
import re
import shlex

import msgspec

from ipcni.errors import CniError
from ipcni.model import Netns, Plan, Step

_QUOTED = re.compile(r"[\"'\\#]|[^\x20-\x7e]")
_REDIRECT = " > "
_SWAPPED = ("-A", "-I", "-N")


def quote(value: object) -> str:
    """One shell word out of a number or a text; several out of a tuple; the prefix words out of a namespace.

    Raises CniError when a value cannot be a word of a line: it has a newline or NUL, or is no text at all.
    """
    match value:
        case str():
            if any(c in value for c in "\n\r\0"):
                raise CniError(f"{value!r} has a line break or NUL in it, which no command line can carry")
            return shlex.quote(value)
        case bool() | None:
            raise TypeError(f"a template puts out {value!r}, which is no word")
        case int() | float():
            return str(value)
        case Netns():
            return shlex.join(value.words)
        case tuple() | list():
            return " ".join(quote(word) for word in value)
    raise TypeError(f"a template puts out a {type(value).__name__}, which is no word")


def render(template: str, /, **values: object) -> Plan:
    """The steps of one template.

    `template` is a path below ipcni/templates. Raises CniError for a value that cannot be a word; anything else that goes
    wrong (an undefined name, a line that is no command) is a defect of the template and raises as such.
    """
    from ipcni.shell import jinja  # 10 ms, and not every request renders something

    return parse(jinja.environment().get_template(template).render(values), template)


@functools.lru_cache(64)  # what all pods share reads the same each time
def parse(text: str, where: str) -> Plan:
    """A rendered template as steps. Lines end at a newline and nowhere else."""
    steps: list[Step] = []
    why: list[str] = []
    fresh = True
    for line in text.split("\n"):
        stripped = line.strip(" ")
        if stripped.startswith("#:"):
            steps[-1] = _directive(steps[-1], stripped[2:].strip(" "))
        elif stripped.startswith("#"):
            if not fresh:
                why, fresh = [], True
            why.append(stripped.lstrip("# "))
        elif stripped:
            fresh = False
            steps.append(_step(stripped, " ".join(why), f"{where} #{len(steps) + 1}"))
    return tuple(steps)


def _step(line: str, why: str, where: str) -> Step:
    words, into = _redirect(line)
    netns, argv = _lift(words)
    return Step(argv=argv, netns=netns, into=into, why=why, where=where)


def _redirect(line: str) -> tuple[list[str], str]:
    """A line's words, and the file behind its `>`. One inside a quoted word leaves a quote open on its left, and is none."""
    at = line.rfind(_REDIRECT)
    while at >= 0:
        with contextlib.suppress(ValueError):
            words, (into,) = _split(line[:at]), _split(line[at + len(_REDIRECT) :])
            return words, into
        at = line.rfind(_REDIRECT, 0, at)
    return _split(line), ""


def _split(line: str) -> list[str]:
    """As a shell does; most lines have nothing to unquote, and shlex looks at every character."""
    return shlex.split(line) if _QUOTED.search(line) else line.split()


def _lift(words: list[str]) -> tuple[Netns | None, tuple[str, ...]]:
    """The namespace a command is to run in, taken off its front."""
    if words[:3] == ["ip", "netns", "exec"]:
        return Netns(f"/run/netns/{words[3]}"), tuple(words[4:])
    if words[0] == "nsenter" and words[1].startswith("--net="):
        return Netns(words[1].removeprefix("--net=")), tuple(words[2:])
    return None, tuple(words)


def _directive(step: Step, text: str) -> Step:
    name, _, said = text.partition(" ")
    match name:
        case "undo":
            return msgspec.structs.replace(step, undo=_command(step, said))
        case "unless":
            return msgspec.structs.replace(step, unless=_command(step, said))
        case "ok":
            return msgspec.structs.replace(step, ok=(*step.ok, said))
        case "until":
            return msgspec.structs.replace(step, until=said)
        case "within":
            return msgspec.structs.replace(step, within=float(said))
        case "new":
            return msgspec.structs.replace(step, new=True)
        case "error":
            return msgspec.structs.replace(step, error=said)
    raise ValueError(f"{step.where}: there is no directive {name!r}")


def _command(step: Step, text: str) -> tuple[str, ...]:
    """A directive's own command: as it stands, or this step's with another flag. One of the node may reach into a pod."""
    words = _split(text)
    if len(words) > 1 or not words[0].startswith("-"):
        return _lift(words)[1] if step.netns else tuple(words)
    argv = list(step.argv)
    at = next(i for i, word in enumerate(argv) if word in _SWAPPED)
    if argv[at] == "-I" and argv[at + 2].isdigit():
        del argv[at + 2]  # where to insert means nothing to -C and -D
    argv[at] = words[0]
    return tuple(argv)
