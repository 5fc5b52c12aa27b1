"""What a plugin can have done: `shell.run.Runner` does it, `shell.show.Printer` says it."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from ipcni.errors import StepFailed
from ipcni.model import Done, Plan
from ipcni.settings import Settings
from ipcni.shell.facts import Facts

T = TypeVar("T")


class Host(Protocol):
    """The node, to a plugin. `live` tells whether the namespace given has to exist, `undoes` that a failure takes back what was done."""

    live: bool
    undoes: bool
    settings: Settings

    @property
    def facts(self) -> Facts:
        """Questions about the node."""
        ...

    def do(self, plan: Plan, *, keep_going: bool = False) -> list[StepFailed]:
        """Runs the steps in order; with `keep_going` failures are returned and the rest is run, else raised."""
        ...

    def attempt(self, plan: Plan, given: Callable[[Facts], bool] | None = None) -> bool:
        """Runs steps of one iptables as one transaction, without having looked beforehand, and says whether it went through.

        If it did not, nothing has changed: the caller looks, and does what is missing. So it does where what has to be `given`, too, is not,
        which is looked at meanwhile.
        """
        ...

    def beside(self, act: "Callable[[Host], object]") -> AbstractContextManager[None]:
        """Has `act` called with a host of its own while the body runs: for two things that the kernel takes long for."""
        ...

    def locked(self, path: str, *, mode: int = 0o600, keep: bool = False) -> AbstractContextManager[None]:
        """Holds a lock file; a bare name is one of ours."""
        ...

    def plugin(self, name: str) -> AbstractContextManager[None]:
        """What is done inside is done for this plugin."""
        ...

    def execute(self, path: str, env: Mapping[str, str], stdin: bytes) -> Done:
        """Runs another suite's plugin."""
        ...

    def consult(self, words: tuple[str, ...], env: Mapping[str, str], stdin: bytes, talk: Callable[[], T]) -> T | None:
        """Has a daemon do the work of this very call, `env` and `stdin`: `talk` does, `words` say what with whom.

        None where it is not done but only said.
        """
        ...

    def on_undo(self, act: Callable[[], object]) -> None:
        """Has `act` called when the request is undone."""
        ...

    def undo(self) -> None:
        """Takes back what was done so far."""
        ...

    def has(self, tool: str) -> bool:
        """Whether there is such a program."""
        ...

    def upkeep(self, act: Callable[[], object]) -> None:
        """Has a cache of ours brought up to date: an effect that is no command."""
        ...

    def residue(self, what: Iterable[object]) -> None:
        """What a DEL could not remove or look at, and that is no reason to fail it: it is remembered for GC."""
        ...

    def note(self, text: str) -> None:
        """A remark for whoever reads the journal or an explanation."""
        ...
