# ruff: noqa: ARG002  # nothing happens here, whatever is asked for
"""A host without a node: plans are noted, questions find nothing, other plugins are made up. For tests that need no root."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from ipcni.errors import CniError, StepFailed
from ipcni.model import Done, Netns, Plan, Step
from ipcni.protocol.host import Host
from ipcni.settings import Settings
from ipcni.shell.facts import Facts

T = TypeVar("T")
ABSENT = Done(1, "", "Device does not exist.", 0)


class Nowhere:
    """What is `planned` and `executed` is kept; `outcomes` are what other suites' plugins end with, in order."""

    live = False
    undoes = False

    def __init__(self, settings: Settings | None = None, env: Mapping[str, str] | None = None) -> None:
        self.settings = settings or Settings(run_dir="/nowhere")
        self.facts = Facts(self._ask)
        self.planned: list[Step] = []
        self.executed: list[tuple[str, Mapping[str, str], bytes]] = []
        self.outcomes: list[Done | BaseException] = []
        self.undoing: list[Callable[[], object]] = []

    def _ask(self, argv: tuple[str, ...], netns: Netns | None, stdin: str = "") -> Done:
        return ABSENT

    def do(self, plan: Plan, *, keep_going: bool = False) -> list[StepFailed]:
        self.planned += plan
        return []

    def attempt(self, plan: Plan, given: Callable[[Facts], bool] | None = None) -> bool:
        return False

    @contextlib.contextmanager
    def beside(self, act: Callable[[Host], object]) -> Iterator[None]:
        yield
        act(self)

    @contextlib.contextmanager
    def locked(self, path: str, *, mode: int = 0o600, keep: bool = False) -> Iterator[None]:
        yield

    @contextlib.contextmanager
    def plugin(self, name: str) -> Iterator[None]:
        yield

    def execute(self, path: str, env: Mapping[str, str], stdin: bytes) -> Done:
        self.executed.append((path, env, stdin))
        outcome = self.outcomes.pop(0) if self.outcomes else Done(0, "", "", 0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def consult(self, words: tuple[str, ...], env: Mapping[str, str], stdin: bytes, talk: Callable[[], T]) -> T | None:
        return talk()

    def on_undo(self, act: Callable[[], object]) -> None:
        self.undoing.append(act)

    def undo(self) -> None:
        acts, self.undoing = self.undoing[::-1], []
        for act in acts:
            with contextlib.suppress(CniError):
                act()

    def has(self, tool: str) -> bool:
        return True

    def upkeep(self, act: Callable[[], object]) -> None:
        pass

    def residue(self, what: Iterable[object]) -> None:
        pass

    def note(self, text: str) -> None:
        pass
