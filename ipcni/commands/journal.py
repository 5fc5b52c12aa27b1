"""`ipcni journal`: what was done, for whom, by which commands."""

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime

import click

from ipcni import settings
from ipcni.shell import remembered


@click.command(
    epilog="\b\nExamples:\n  ipcni journal --pod default/web-0 --since 1h\n  ipcni journal --failed\n  ipcni journal --container-id 3f9c --format sh > what-ran.sh"
)
@click.option("--container-id", default="", help="Only this container (the beginning of its id will do).")
@click.option("--pod", default="", help="Only this pod: NAMESPACE/NAME or NAME.")
@click.option("--network", default="", help="Only this network.")
@click.option("--since", default="", help="Only from then on: 2h, 10m, or 2026-01-31T12:00.")
@click.option("--failed", is_flag=True, help="Only what failed.")
@click.option("--slow", default="", help="Only what took as long as this: 500ms, 2s.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "sh", "json"]),
    default="text",
    show_default=True,
    help="For people, as a script, or as it is stored.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
def command(container_id: str, pod: str, network: str, since: str, failed: bool, slow: str, form: str, follow: bool) -> None:
    """Show what the plugins did: every operation, its commands, their exit status and time.

    Lines with + changed something, with - took it back, with ? only looked. The journal is /var/log/ipcni/journal.jsonl (`log_dir` in
    /etc/ipcni/ipcni.toml, or IPCNI_LOG_DIR, moves it).
    """
    where = settings.load(os.environ)
    begin = remembered.moment(since, datetime.now(UTC)) if since else None
    least = remembered.span(slow) if slow else 0

    def chosen(lines: Iterable[remembered.Line]) -> Iterable[remembered.Line]:
        return (
            line
            for line in lines
            if remembered.matches(
                line, container_id=container_id, pod=pod, network=network, since=begin, failed=failed, slow=least
            )
        )

    def tell(lines: Iterable[remembered.Line]) -> None:
        told = remembered.script(lines) if form == "sh" else map(remembered.text if form == "text" else _json, lines)
        for text in told:
            click.echo(text, nl=False)

    tell(chosen(remembered.follow(where) if follow else remembered.lines(where)))


def _json(line: remembered.Line) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"
