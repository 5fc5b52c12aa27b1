"""Saying: a host that writes down what it is told to do, and the ways of printing that. What `explain` uses instead of run."""

import contextlib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from ipcni.errors import CniError, StepFailed
from ipcni.model import NAMED_NETNS, Done, Family, Netns, Plan, Step, command_words
from ipcni.model import line as line_of
from ipcni.protocol import address as addresses
from ipcni.settings import Settings
from ipcni.shell import batch as batches
from ipcni.shell.facts import Ask, Facts
from ipcni.shell.iproute import Address, Link, Route
from ipcni.shell.run import Runner


class Block(msgspec.Struct, frozen=True):
    """What one plugin wants done at once. `lines` is shell that comes before the steps (a lock, another plugin's call)."""

    plugin: str
    caller: str
    steps: Plan = ()
    lines: tuple[str, ...] = ()


class NotOursError(CniError):
    """Another suite's plugin would be run here, and what follows depends on its answer."""


_EVERYWHERE = ("0.0.0.0/0", "::/0")
_MAKES = (("ip", "link", "add"), ("ip", "tuntap", "add"))


class Imagined(Facts):
    """Questions to the node, answered as they will have to be once the script has run so far."""

    def __init__(self, ask: Ask, made: list[Step]) -> None:
        super().__init__(ask)
        self._made = made

    def link(self, name: str, netns: Netns | None = None) -> Link | None:
        """A pod's link as the script makes it, if it does."""
        first = name
        for step in reversed(self._made if netns else []):
            if step.argv[:4] == ("ip", "link", "set", "dev") and step.netns == netns and _given(step.argv, "name") == first:
                first = step.argv[4]  # what it was called before
            if step.argv[:3] in _MAKES and netns in (step.netns, Netns(_given(step.argv, "netns"))):
                words = step.argv[step.argv.index("peer") :] if "peer" in step.argv else step.argv
                if _given(words, "name") == first:
                    return self._link(name, words, step.netns)
        return super().link(name, netns)

    def _link(self, name: str, words: tuple[str, ...], netns: Netns | None) -> Link:
        """The link that a command makes: what the command does not say is the master's."""
        above = super().link(_given(words[3:], "link"), netns) if "link" in words[3:] else None
        mtu = _given(words, "mtu") or (above.mtu if above else 1500)
        mac = _given(words, "address") or (above.mac if above else "")
        return Link(
            name=name,
            mac=mac,
            mtu=int(mtu),
            txqlen=int(_given(words, "txqueuelen") or 1000),
            addr_info=tuple(self._addresses(name)),
        )

    def _addresses(self, name: str) -> Iterator[Address]:
        for step in self._made:
            if step.netns and step.argv[:3] == ("ip", "addr", "add") and _given(step.argv, "dev") == name:
                address, _, length = step.argv[3].partition("/")
                yield Address(local=address, length=int(length), family="inet6" if ":" in address else "inet")

    def routes(self, family: Family, netns: Netns | None = None, table: str = "main") -> tuple[Route, ...]:
        """Those of the namespace, and those of the script."""
        return (*super().routes(family, netns, table), *self._routes(family, netns, table))

    def _routes(self, family: Family, netns: Netns | None, table: str) -> Iterator[Route]:
        for step in self._made if table == "main" else ():
            if step.netns == netns and step.argv[:3] == ("ip", "addr", "add") and addresses.family(step.argv[3]) == family:
                yield from _connected(step.argv[3], _given(step.argv, "dev"))
        for step in self._made:
            words = step.argv
            if (step.netns, words[:3]) != (netns, ("ip", "route", "prepend")):
                continue
            if addresses.family(words[3]) == family and (_given(words, "table") or "main") == table:
                yield Route(
                    dst="default" if words[3] in _EVERYWHERE else words[3],
                    gateway=_given(words, "via"),
                    dev=_given(words, "dev"),
                    protocol="boot",
                    scope=_given(words, "scope"),
                    metric=int(_given(words, "metric") or 0),
                )

    def sysctls(self, paths: list[str], netns: Netns) -> dict[str, str]:
        """Those of a link that the script makes will be the namespace's defaults."""
        asked = {path: self._default(path, netns) for path in paths}
        found = super().sysctls(list(dict.fromkeys(asked.values())), netns)
        return {path: found[default] for path, default in asked.items() if default in found}

    def _default(self, path: str, netns: Netns) -> str:
        match path.split("/"):
            case ["net", family, kind, link, *name] if super().link(link, netns) is None and self.link(link, netns):
                return "/".join(("net", family, kind, "default", *name))
        return path

    def route_dev(self, address: str, family: Family) -> str | None:
        """By the link that the script gives an address of that network, if it does."""
        for step in self._made:
            match step.argv:
                case ("ip", "addr", "add", prefix, *_, "dev", dev) if step.netns is None:
                    if addresses.ip(address) in addresses.cidr(prefix).network:
                        return dev
        return super().route_dev(address, family)


def _connected(prefix: str, dev: str) -> Iterator[Route]:
    """The routes that the kernel makes for an address of a link that is up."""
    address = addresses.cidr(prefix)
    if address.network.prefixlen < address.max_prefixlen:
        network = address.network.with_prefixlen
        if address.version == 4:
            yield Route(dst=network, dev=dev, protocol="kernel", scope="link", prefsrc=str(address.ip))
        else:
            yield Route(dst=network, dev=dev, protocol="kernel", metric=256)
            yield Route(dst="fe80::/64", dev=dev, protocol="kernel", metric=256)


def _given(words: tuple[str, ...], key: str) -> str:
    """The word behind `key`; a namespace's name as its path."""
    value = words[words.index(key) + 1] if key in words else ""
    return f"{NAMED_NETNS}/{value}" if key == "netns" and value and "/" not in value else value


class Printer:
    """A host on which nothing happens. Questions are asked of the real one."""

    live = False
    undoes = False

    def __init__(self, settings: Settings, env: Mapping[str, str]) -> None:
        self.settings = settings
        self._runner = Runner(settings, env)
        self._made: list[Step] = []
        self.facts = Imagined(self._ask, self._made)
        self.blocks: list[Block] = []
        self.looks: list[tuple[str, str]] = []
        self._plugins: list[str] = []

    def do(self, plan: Plan, *, keep_going: bool = False) -> list[StepFailed]:  # noqa: ARG002
        """Notes the steps."""
        if plan:
            self._say(steps=plan)
            self._made += plan
        return []

    @contextlib.contextmanager
    def locked(self, path: str, *, mode: int = 0o600, keep: bool = False) -> Iterator[None]:  # noqa: ARG002
        """Notes a lock that is shared with other suites; ours only keep plugins apart from each other."""
        if not keep:
            yield
            return
        folder, _, _ = path.rpartition("/")
        opened = f"exec 9>>{shlex.quote(path)}"
        self._say(
            lines=(
                "# One at a time: every host-local on this node takes this lock.",
                f"mkdir -p {shlex.quote(folder)}",
                opened,
                "flock 9",
            )
        )
        yield
        self._say(lines=("exec 9>&-",))

    @contextlib.contextmanager
    def plugin(self, name: str) -> Iterator[None]:
        """What is said inside is said for this plugin."""
        self._plugins.append(name)
        try:
            yield
        finally:
            self._plugins.pop()

    def _say(self, steps: Plan = (), lines: tuple[str, ...] = ()) -> None:
        plugin, caller = ([*reversed(self._plugins), "", ""])[:2]
        self.blocks.append(Block(plugin, caller, steps, lines))

    def _ask(self, argv: tuple[str, ...], netns: Netns | None) -> Done:
        self.looks.append((self._plugins[-1] if self._plugins else "", shlex.join(command_words(argv, netns))))
        return self._runner.ask(argv, netns)

    def execute(self, path: str, env: Mapping[str, str], stdin: bytes) -> Done:
        """Notes the call of another suite's plugin; ADD's answer is not to be known, so ADD stops here."""
        variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in sorted(env.items()) if key.startswith("CNI_"))
        line = f"printf %s {shlex.quote(stdin.decode('utf-8', 'replace'))} | {variables} {shlex.quote(path)}"
        self._say(lines=(f"# {path} is another suite's plugin: it is run by the CNI protocol.", line))
        if env.get("CNI_COMMAND") == "ADD":
            raise NotOursError(
                f"what follows depends on the answer of {path}", details="only ipcni's own plugins can be explained"
            )
        return Done(0, "", "", 0)

    def on_undo(self, act: Callable[[], object]) -> None:
        """Nothing will have been done."""

    def undo(self) -> None:
        """Nothing was done."""

    def upkeep(self, act: Callable[[], object]) -> None:
        """Caches stay as they are."""

    def residue(self, what: Iterable[object]) -> None:
        """Nothing was removed."""

    def note(self, text: str) -> None:
        """A remark for the reader."""
        self._say(lines=(f"# {text}",))

    def has(self, tool: str) -> bool:
        """Whether there is such a program."""
        return self._runner.has(tool)


def script(blocks: Iterable[Block], *, undo: bool = False, as_run: bool = False) -> str:
    """The blocks as a POSIX shell script: the plugin before each, why before each command; `as_run` joined as it is run."""
    lines: list[str] = []
    last: tuple[str, str] | None = None
    why = ""
    for block in blocks:
        if (block.plugin, block.caller) != last:
            last, why = (block.plugin, block.caller), ""
            lines += ["", title(block)]
        if block.lines:
            lines += ["", *block.lines] if block.lines[0].startswith("#") else block.lines
        for batch in batches.coalesce(block.steps) if as_run else ():
            lines += _joined(batch)
        for step in () if as_run else block.steps:
            if step.why and step.why != why:
                lines += ["", f"# {step.why}"]
            why = step.why
            lines.append(step.shell())
            if undo and step.undo:
                lines.append(f"#   undo: {line_of(command_words(step.undo, step.netns))}")
    return "\n".join(lines) + "\n"


def title(block: Block) -> str:
    """The line that names a block's plugin."""
    return f"# ---- {block.plugin}" + (f", called by {block.caller}" if block.caller else "")


def _joined(batch: batches.Batch) -> list[str]:
    """One process of a plan, its standard input as a here-document."""
    if batch.stdin:
        return [f"{line_of(batch.argv)} <<'EOF'", *batch.stdin.rstrip("\n").split("\n"), "EOF"]
    if batch.carrier == "sysctl":
        return [line_of(batch.argv)]
    return [step.shell() for step in batch.steps]


def markdown(blocks: Iterable[Block], *, undo: bool = False) -> str:
    """The blocks as a page: a heading per plugin, the reasons as text, the commands as code."""
    parts: list[str] = []
    code: list[str] = []
    last: tuple[str, str] | None = None
    why = ""

    def close() -> None:
        if code:
            parts.append("```sh\n" + "\n".join(code) + "\n```")
            code.clear()

    def say(text: str) -> None:
        close()
        parts.append(text)

    for block in blocks:
        if (block.plugin, block.caller) != last:
            last, why = (block.plugin, block.caller), ""
            say(f"## {block.plugin}" + (f" (called by {block.caller})" if block.caller else ""))
        for line in block.lines:
            say(line.removeprefix("# ")) if line.startswith("#") else code.append(line)
        for step in block.steps:
            if step.why and step.why != why:
                say(step.why)
            why = step.why
            code.append(step.shell())
            if undo and step.undo:
                code.append(f"#   undo: {line_of(command_words(step.undo, step.netns))}")
    close()
    return "\n\n".join(parts) + "\n"


def document(blocks: Iterable[Block]) -> list[dict[str, object]]:
    """The blocks as data: `plugin`, `caller`, and `steps`, each with `command` (one line of shell, guards included), `argv`, `why`,
    `template` and, where it has them, `undo`, `unless`, `ok`, `until`."""
    return [
        {
            "plugin": block.plugin,
            "caller": block.caller,
            "steps": [{"command": line} for line in block.lines if not line.startswith("#")]
            + [_facts(step) for step in block.steps],
        }
        for block in blocks
    ]


def _facts(step: Step) -> dict[str, object]:
    extra = {
        "undo": line_of(command_words(step.undo, step.netns)) if step.undo else "",
        "unless": shlex.join(command_words(step.unless, step.netns)) if step.unless else "",
        "ok": list(step.ok),
        "until": step.until,
    }
    body: dict[str, object] = {"command": step.shell(), "argv": list(step.words), "why": step.why, "template": step.where}
    return body | {key: value for key, value in extra.items() if value}


def result_comment(body: Mapping[str, object]) -> str:
    """The answer to the runtime, as comments."""
    text = json.dumps(body, indent=2, ensure_ascii=False)
    return "\n# ---- the answer\n" + "".join(f"# {line}\n" for line in text.split("\n"))
