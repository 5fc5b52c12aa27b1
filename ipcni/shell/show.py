"""Saying: a host that writes down what it is told to do, and the ways of printing that. What `explain` uses instead of run."""

import contextlib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ipcni.errors import CniError, StepFailed
from ipcni.model import Done, Netns, Plan, Step, command_words
from ipcni.model import line as line_of
from ipcni.protocol import delegate
from ipcni.settings import Settings
from ipcni.shell import batch as batches
from ipcni.shell.facts import Facts
from ipcni.shell.imagined import Imagined
from ipcni.shell.run import Runner

if TYPE_CHECKING:
    from ipcni.protocol.host import Host

T = TypeVar("T")


class Block(msgspec.Struct, frozen=True):
    """What one plugin wants done at once. `lines` is shell that comes before the steps (a lock, another plugin's call)."""

    plugin: str
    caller: str
    steps: Plan = ()
    lines: tuple[str, ...] = ()


class NotOursError(CniError):
    """Another suite's plugin would be run here, and what follows depends on its answer."""


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

    def attempt(self, plan: Plan, given: Callable[[Facts], bool] | None = None) -> bool:  # noqa: ARG002
        """Says that it did not go through: what is missing is to be shown, and nothing else."""
        return False

    @contextlib.contextmanager
    def beside(self, act: "Callable[[Host], object]") -> Iterator[None]:
        """One after the other: the body is said first."""
        yield
        act(self)

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

    def _ask(self, argv: tuple[str, ...], netns: Netns | None, stdin: str = "") -> Done:
        self.looks.append((self._plugins[-1] if self._plugins else "", shlex.join(command_words(argv, netns))))
        return self._runner.ask(argv, netns, stdin)

    def execute(self, path: str, env: Mapping[str, str], stdin: bytes) -> Done:
        """Notes the call of another suite's plugin; ADD's answer is not to be known, so ADD stops here."""
        self._call(f"{path} is another suite's plugin: it is run by the CNI protocol.", path, env, stdin)
        if env.get("CNI_COMMAND") == "ADD":
            raise NotOursError(
                f"what follows depends on the answer of {path}", details="only ipcni's own plugins can be explained"
            )
        return Done(0, "", "", 0)

    def consult(self, words: tuple[str, ...], env: Mapping[str, str], stdin: bytes, talk: Callable[[], T]) -> T | None:  # noqa: ARG002
        """Notes the call that has the daemon do the work; whether and how it answers is not to be known, so ADD stops here."""
        plugin = self._plugins[-1]
        path = delegate.find(plugin, env.get("CNI_PATH", ""))
        self._call(f"A daemon does the work: {' '.join(words)}.", path, env, stdin)
        if env.get("CNI_COMMAND") == "ADD":
            raise NotOursError(f"what follows depends on the answer of {words[-1]}", details=f"{plugin} has a daemon do its work")
        return None

    def _call(self, remark: str, path: str, env: Mapping[str, str], stdin: bytes) -> None:
        variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in sorted(env.items()) if key.startswith("CNI_"))
        line = f"printf %s {shlex.quote(stdin.decode('utf-8', 'replace'))} | {variables} {shlex.quote(path)}"
        self._say(lines=(f"# {remark}", line))

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
