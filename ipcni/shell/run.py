"""Doing: runs a plan on this machine, tolerates what may fail, and takes back what a failure leaves."""

import contextlib
import os
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from ipcni.errors import INTERNAL, TRY_AGAIN, CniError, Interrupted, StepFailed
from ipcni.model import Done, Netns, Plan, Step, command_words
from ipcni.settings import Settings
from ipcni.shell import batch as batches
from ipcni.shell import files
from ipcni.shell.batch import Batch
from ipcni.shell.facts import Facts, busy
from ipcni.shell.inside import inside
from ipcni.shell.log import Entry, Log
from ipcni.shell.process import OUT_OF_TIME, process, search_path
from ipcni.shell.shell import Shell
from ipcni.shell.signals import undisturbed
from ipcni.shell.threads import meanwhile

if TYPE_CHECKING:
    from ipcni.protocol.host import Host

_TRIES = 4
T = TypeVar("T")


class Runner:
    """Runs plans on this machine, remembers how to undo them, and keeps the list of what ran (`log`).

    One per request; nothing of it outlives the request.
    """

    live = True
    undoes = False

    def __init__(self, settings: Settings, env: Mapping[str, str], shell: Shell | None = None) -> None:
        self.settings = settings
        self._shell = shell or Shell()
        self.facts = Facts(self.ask)
        self._log = Log()
        self._path, self._tools = search_path(env), dict[str, bool]()
        self._undo: list[Step | Callable[[], object]] = []
        self._fds: set[int] = set()
        self._then: tuple[str, ...] = ()  # the program that the plan goes on with

    # -- the surroundings of a plan

    @contextlib.contextmanager
    def plugin(self, name: str) -> Iterator[None]:
        """What is done inside is done for this plugin."""
        caller, self._log.plugin = self._log.plugin, name
        try:
            yield
        finally:
            self._log.plugin = caller

    @contextlib.contextmanager
    def locked(self, path: str, *, mode: int = 0o600, keep: bool = False) -> Iterator[None]:
        """Holds a lock file, see locks.locked; a path without a folder is one of ours below run_dir."""
        with undisturbed():  # not by halves
            from ipcni.shell.locks import locked  # 11 ms, and loopback takes none
        hint = ""
        if "/" not in path:
            path = f"{self.settings.run_dir}/locks/{path}"
            hint = "; IPCNI_RUN_DIR or run_dir in the settings moves it"
        started = time.monotonic()
        with locked(path, self.settings.lock_timeout, mode=mode, keep=keep, hint=hint, hurried=self._shell.hurried) as fd:
            if (waited := round((time.monotonic() - started) * 1000, 2)) > 50:
                self._log.remark(f"waited for {path}", ms=waited)
            outermost = not self._fds
            self._fds.add(fd)
            try:
                yield
            except (Exception, Interrupted):
                if outermost and self.undoes:  # before anybody else has the lock: what comes next must not meet our undoing
                    with contextlib.suppress(Exception):
                        self.undo()
                raise
            finally:
                self._fds.discard(fd)

    @property
    def log(self) -> list[Entry]:
        """What ran so far."""
        return self._log.entries

    @contextlib.contextmanager
    def beside(self, act: "Callable[[Host], object]") -> Iterator[None]:
        """Has `act` called with a host of its own, in a thread and with another shell, while the body runs.

        Both are waited for. What the body raises is raised, else what `act` does; either way both are in the journal and undone together.
        """
        twin = Runner(self.settings, {}, self._shell.beside)
        twin._log, twin._path, twin._fds = Log(self.log, self._log.plugin), self._path, set(self._fds)
        try:
            with meanwhile(lambda: act(twin), twin._shell.hurry):
                yield
        finally:
            twin._shell.calm()  # it may have something to undo
            self._undo += twin._undo
            self.facts.unknown += twin.facts.unknown

    # -- doing

    def do(self, plan: Plan, *, keep_going: bool = False) -> list[StepFailed]:
        """Runs the steps in order. A failure ends that and is raised; with `keep_going` (removals) the rest is run and failures are returned."""
        failures: list[StepFailed] = []
        todo = batches.coalesce(plan)
        for at, batch in enumerate(todo):
            self._then = next((each.argv if each.stdin else () for each in todo[at + 1 :] if each.carrier != "file"), ())
            try:
                self._batch(batch, failures if keep_going else None)
            except (Interrupted, StepFailed) as end:
                if isinstance(end, Interrupted) or _cut_short(end.status):  # how far it got is unknown
                    self._undo += batch.steps
                self._then = ()  # or the next question would have it wait again
                self._shell.dismiss()
                raise
        return failures

    def attempt(self, plan: Plan, given: Callable[[Facts], bool] | None = None) -> bool:
        """Runs steps of one iptables as one transaction without a look beforehand; whether it went through. If not, nothing is changed.

        `given` is looked at meanwhile, and has to be true as well.
        """
        if given is None:
            return self._attempt(plan)
        found: list[bool] = []
        with self.beside(lambda other: found.append(given(other.facts))):
            made = self._attempt(plan)
        return made and found[0]

    def _attempt(self, plan: Plan) -> bool:
        batch = Batch("iptables", plan)
        before = len(self._undo)
        self._undo += plan  # beforehand: how far an interrupted one gets is unknown
        done = self._carry(batch)
        self._log.command(batch.argv, batch.stdin, done, plan, look=done.status != 0)
        if _cut_short(done.status):
            self._judge(plan[0], done, None)
        if done.status != 0:
            del self._undo[before:]
        return done.status == 0

    def undo(self) -> None:
        """Takes back what this request did, newest first, as well as it can be done. No signal stops that: it would lose the rest."""
        try:
            self._take_back()
        except Interrupted:  # just before, or behind, when nothing is left to do; why it is undone is what has to be told
            self._take_back()

    def _take_back(self) -> None:
        with undisturbed():
            entries, self._undo, self._log.undoing = self._undo[::-1], [], True
            back: list[Step] = []
            for entry in entries:
                if isinstance(entry, Step):
                    if entry.undo and files.still_ours(entry):
                        back.append(Step(argv=entry.undo, netns=entry.netns))
                    continue
                self.do(tuple(back), keep_going=True)
                back = []
                with contextlib.suppress(CniError):
                    entry()
            self.do(tuple(back), keep_going=True)
            self._undo = []

    def on_undo(self, act: Callable[[], object]) -> None:
        """Has `act` called when the request is undone."""
        self._undo.append(act)

    def upkeep(self, act: Callable[[], object]) -> None:
        """Brings a cache of ours up to date."""
        act()

    def residue(self, what: Iterable[object]) -> None:
        """Puts on the record what a DEL could not remove: GC finds it."""
        for each in what:
            self._log.remark(f"left behind: {each}")

    def note(self, text: str) -> None:
        """Puts a remark on the record."""
        self._log.remark(text)

    def _unneeded(self, step: Step) -> bool:
        return bool(step.unless) and self.ask(step.unless, step.netns).status == 0

    def _batch(self, batch: Batch, failures: list[StepFailed] | None) -> None:
        match batch.carrier:
            case "file":
                self._files(batch, failures)
            case "ip" | "tc" | "bridge":
                self._lines(batch, failures)
            case "iptables" | "nft":
                self._transaction(batch, failures)
            case _:
                (step,) = batch.steps
                line = Batch(batches.carrier(step), batch.steps)
                if line.stdin and step.netns is None and self._shell.waits(line.argv, self._path):  # which starts no program
                    self._batch(line, failures)
                else:
                    self._one(step, self._execute, failures)

    def _files(self, batch: Batch, failures: list[StepFailed] | None) -> None:
        """Files, and settings, those of a pod in its namespace. What is made is noted for undoing, or it is not made."""

        def act(perform: Callable[[Step], Done] = files.perform) -> None:
            for step in batch.steps:
                with undisturbed() if step.until is None else contextlib.nullcontext():
                    self._one(step, perform, failures, direct=True)

        try:
            inside(batch.netns, act) if batch.netns else act()
        except OSError as problem:  # there is no such namespace
            failure = Done(1, "", f"{problem.filename}: {problem.strerror}", 0)
            act(lambda _: failure)

    def _one(self, step: Step, act: Callable[[Step], Done], failures: list[StepFailed] | None, *, direct: bool = False) -> None:
        if self._unneeded(step):
            return
        deadline = time.monotonic() + step.within
        while True:
            done = act(step)
            if step.until is None or done.out.strip() == step.until or done.status:
                break
            if time.monotonic() >= deadline:
                done = Done(1, done.out, done.out.strip() or "nothing", done.ms)
                break
            time.sleep(0.05)
        self._log.command(step.words, "", done, [step], direct=direct)
        self._judge(step, done, failures)

    def _execute(self, step: Step) -> Done:
        tries = _TRIES if step.argv[0].endswith("tables") else 1
        return self._patiently(step.words, "", tries)

    def _judge(self, step: Step, done: Done, failures: list[StepFailed] | None) -> None:
        """Counts a step as made, tolerated, or failed."""
        if done.status == 0:
            self._undo.append(step)
        elif not any(text in done.err for text in step.ok):
            code = TRY_AGAIN if _busy(step.argv[0], done) or _cut_short(done.status) else INTERNAL
            failure = StepFailed(step, done.status, done.err, code)
            if failures is None:
                raise failure
            failures.append(failure)

    def _lines(self, batch: Batch, failures: list[StepFailed] | None) -> None:
        """ip -batch and its kin stop at the first line that fails; go on behind it if that is fine."""
        steps = batch.steps
        while steps:
            part = Batch(batch.carrier, steps)
            done = self._carry(part)
            self._log.command(part.argv, part.stdin, done, steps)
            if done.status == 0:
                self._undo += steps
                return
            at = batches.guilty(steps, done.err)
            self._undo += steps[:at]
            self._judge(steps[at], done, failures)
            steps = steps[at + 1 :]

    def _transaction(self, batch: Batch, failures: list[StepFailed] | None) -> None:
        """All or nothing: when it was nothing, the steps are run singly and the guilty one names itself."""
        done = self._carry(batch)
        self._log.command(batch.argv, batch.stdin, done, batch.steps)
        if done.status == 0:
            self._undo += batch.steps
            return
        if _busy(batch.steps[0].argv[0], done) or _cut_short(done.status):  # nothing would be any better singly
            self._judge(batch.steps[0], done, failures)
            return
        for step in batch.steps:
            self._one(step, self._execute, failures)

    def _carry(self, batch: Batch) -> Done:
        return self._patiently(batch.argv, batch.stdin, _TRIES if batch.carrier == "iptables" else 1)

    def _patiently(self, argv: tuple[str, ...], stdin: str, tries: int) -> Done:
        """An iptables that finds the kernel or its lock busy is asked again, a little later each time."""
        done = self._process(argv, stdin)
        for attempt in range(1, tries):
            if not _busy(argv[0], done) or "xtables lock" in done.err:  # -w has waited for the lock already
                break
            time.sleep(random.uniform(0.02, 0.05) * 2**attempt)
            done = self._process(argv, stdin)
        return done

    # -- questions and other plugins

    def ask(self, argv: tuple[str, ...], netns: Netns | None, stdin: str = "") -> Done:
        """Runs a command that changes nothing."""
        words = command_words(argv, netns)
        done = self._patiently(words, stdin, _TRIES if "tables" in argv[0] else 1)
        self._log.command(words, stdin, done, look=True)
        return done

    def execute(self, path: str, env: Mapping[str, str], stdin: bytes) -> Done:
        """Runs another plugin by the CNI protocol; it takes as long as it takes, within ten commands' time."""
        done = process((path,), stdin, env, 10 * self.settings.command_timeout, self._fds)
        self._log.command((path,), stdin.decode("utf-8", "replace"), done)
        return done

    def consult(self, words: tuple[str, ...], env: Mapping[str, str], stdin: bytes, talk: Callable[[], T]) -> T | None:  # noqa: ARG002
        """Has a daemon do the work."""
        with self._log.talk(words):
            return talk()

    def _process(self, argv: tuple[str, ...], stdin: str) -> Done:
        return self._shell.run(argv, stdin, self._path, self.settings.command_timeout, self._fds, self._then)

    def has(self, tool: str) -> bool:
        """Whether there is such a program."""
        if tool not in self._tools:
            self._tools[tool] = shutil.which(tool, path=self._path) is not None
        return self._tools[tool]


def _busy(tool: str, done: Done) -> bool:
    return os.path.basename(tool).startswith(("iptables", "ip6tables")) and busy(done)


def _cut_short(status: int) -> bool:
    """Whether a command was killed: it may have done what it was to do, or not."""
    return status == OUT_OF_TIME or status < 0
