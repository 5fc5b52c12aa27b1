"""Templates to texts. The only module that knows Jinja."""

import contextlib
import functools
import importlib
import os
import pathlib
from collections.abc import MutableMapping
from typing import Any

import jinja2

from ipcni import __version__
from ipcni.shell import files
from ipcni.shell.render import quote

_TEMPLATES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "templates")


def _finalize(value: object) -> object:
    """What a template puts out is a word; an undefined name raises when Jinja puts it out."""
    return value if isinstance(value, jinja2.Undefined) else quote(value)


class _Compiled(jinja2.ModuleLoader):
    """Templates as Python modules, made by whoever needs them first, and known by what they were made of: another text is another module.

    Where that is not to be had, for want of a folder to write to, say, they are compiled each time.
    """

    def __init__(self, sources: str) -> None:
        self._sources = sources
        self._modules = os.path.join(sources, "__pycache__", f"{__version__}-{jinja2.__version__}")
        super().__init__(self._modules)

    def load(
        self,
        environment: jinja2.Environment,
        name: str,
        globals: MutableMapping[str, Any] | None = None,  # noqa: A002  # the name is Jinja's
    ) -> jinja2.Template:
        source = files.content(os.path.join(self._sources, name)).decode()
        made_of = f"{name}\n{source}"
        with contextlib.suppress(Exception):
            module = os.path.join(self._modules, self.get_module_filename(made_of))
            if not os.path.exists(module):
                files.put(module, environment.compile(source, name, raw=True, defer_init=True).encode(), 0o644)
                importlib.invalidate_caches()  # Python remembers which modules a folder has
            return super().load(environment, made_of, globals)
        return jinja2.FileSystemLoader(self._sources).load(environment, name, globals)


@functools.cache
def environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=_Compiled(_TEMPLATES),
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def load_all() -> None:
    """Compiles every template there is, for a process that will use them all."""
    for path in pathlib.Path(_TEMPLATES).rglob("*.j2"):
        environment().get_template(str(path.relative_to(_TEMPLATES)))
