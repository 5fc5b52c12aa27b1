"""The operator's command: one file a subcommand, found by its name (`ipcni explain` is commands/explain.py)."""

import importlib
import pkgutil
import sys
from typing import Any, NoReturn

import click

from ipcni import __version__
from ipcni.errors import CniError


class _Lazy(click.Group):
    """Imports a subcommand only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(module.name for module in pkgutil.iter_modules(__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ipcni")
def cli() -> None:
    """CNI plugins you can read: shows, runs and remembers what they do."""


def main(args: list[str] | None = None) -> Any:
    """Runs the command line. A failure is one line on stderr and exit status 1 (2: wrong usage)."""
    try:
        return cli(args, prog_name="ipcni", standalone_mode=False)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "ipcni"
        _fail(f"{error.format_message()} (see {where} --help)", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has seen enough
        sys.exit(141)
    except CniError as error:
        _fail(str(error), 1)


def _fail(text: str, status: int) -> NoReturn:
    click.echo(f"ipcni: {text}", err=True)
    sys.exit(status)
