"""`ipcni serve`: the plugins, kept warm."""

import os
import sys

import click

from ipcni import settings


@click.command(epilog="\b\nExamples:\n  ipcni serve\n  ipcni serve --workers 8 --idle-exit 600")
@click.option("--socket", "path", default="", help="Where clients find it (default: serve/sock in run_dir).", metavar="PATH")
@click.option(
    "--workers", default=2 * (os.cpu_count() or 1) + 2, show_default=True, type=click.IntRange(1, 256), help="Requests at once."
)
@click.option("--queue", default=64, show_default=True, type=click.IntRange(1, 4096), help="Requests that may wait.")
@click.option(
    "--idle-exit",
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(0),
    help="End after so long without a request (0: never).",
)
@click.option(
    "--timeout",
    default=240.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(1),
    help="What a request may take; it is undone then.",
)
@click.option(
    "--memory",
    default=256,
    show_default=True,
    metavar="MIB",
    type=click.IntRange(1),
    help="A worker that has grown so far is replaced.",
)
def command(path: str, workers: int, queue: int, idle_exit: float, timeout: float, memory: int) -> None:
    """Keep the plugins warm: everything imported, a shell running.

    The plugins that `ipcni install` made are small programs which hand their call to this server, and run as they are where there is none,
    it is busy, or of other code. SIGTERM ends it after what runs; SIGHUP starts it anew, as the code that is installed now.
    """
    from ipcni.serve import pool, wire, worker

    where = path or f"{settings.load(os.environ).run_dir}/{wire.SOCKET}"
    served = pool.Pool(workers, worker.Limits(seconds=timeout, memory=memory), idle_exit)
    listener = pool.listen(where, queue, os.environ)
    click.echo(f"ipcni: serving at {where} with {workers} workers", err=True)
    if served.run(listener, os.environ):
        os.execv(sys.executable, [sys.executable, "-I", *sys.argv])
