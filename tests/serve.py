"""Answers many CNI calls in one process, for tests that would otherwise wait for Python to start a thousand times.

Reads a list of `[plugin, environment, configuration]`, prints the list of `[status, stdout, stderr]`.
"""

import json
import sys

from ipcni.protocol import skel
from ipcni.shell.run import Runner


def main() -> None:
    answers = []
    for plugin, env, conf in json.load(sys.stdin):
        answer = skel.handle(plugin, env, conf.encode, Runner)
        answers.append([answer.status, answer.stdout.decode(), answer.stderr])
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
