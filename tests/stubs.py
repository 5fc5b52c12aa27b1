"""Plugins that do nothing but write down how they are called, and answer as they are told to."""

import dataclasses
import json
import os
import pathlib
import shlex
from typing import Any


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a stub: what it saw."""

    plugin: str
    env: dict[str, str]
    stdin: bytes

    @property
    def verb(self) -> str:
        return self.env["CNI_COMMAND"]

    @property
    def conf(self) -> Any:
        return json.loads(self.stdin)


class Stubs:
    """A folder of such plugins, `bin`."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        (folder / "calls").mkdir()

    def stub(self, name: str, out: object = "", *, status: int = 0, err: str = "", verb: str = "ADD") -> None:
        """A plugin that prints and exits so when it is asked for `verb`, and succeeds quietly for the other ones."""
        text = out if isinstance(out, str) else json.dumps(out)
        answers = self.folder / f"{name}.{verb}"
        answers.write_text(f"printf %s {shlex.quote(text)}; printf %s {shlex.quote(err)} >&2; exit {status}\n")
        path = self.bin / name
        path.write_text(
            f"#!/bin/sh\ncd {self.folder}\ncall=calls/$(ls calls | wc -l)\nmkdir $call\necho {name} > $call/plugin\n"
            f"cat /proc/$$/environ > $call/env\ncat > $call/stdin\n[ ! -f {name}.$CNI_COMMAND ] || . ./{name}.$CNI_COMMAND\n"
        )
        path.chmod(0o755)

    @property
    def calls(self) -> list[Call]:
        found = []
        for folder in sorted((self.folder / "calls").iterdir(), key=lambda each: int(each.name)):
            text = os.fsdecode((folder / "env").read_bytes())
            env = dict(pair.split("=", 1) for pair in text.split("\0") if pair)
            found.append(Call((folder / "plugin").read_text().strip(), env, (folder / "stdin").read_bytes()))
        return found

    @property
    def told(self) -> list[str]:
        """The calls in short: `a ADD`."""
        return [f"{call.plugin} {call.verb}" for call in self.calls]
