"""One hierarchy of failures, rooted in the CNI error object (CNI spec 1.1.0, section "Error")."""

from ipcni.model import Step

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
BAD_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING = 6
BAD_CONFIG = 7
BAD_NETNS = 8
TRY_AGAIN = 11
NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51
INTERNAL = 999


class CniError(Exception):
    """What a plugin answers instead of a result.

    `code` is one of the numbers above or a delegate's own, `msg` one short line (the reference plugins' wording where they
    have one), `details` says where and what to do about it.
    """

    def __init__(self, msg: str, code: int = INTERNAL, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg}; {self.details}" if self.details else self.msg

    def json(self) -> dict[str, object]:
        """The error object: `code`, `msg` and, when there are any, `details`."""
        answer: dict[str, object] = {"code": self.code, "msg": self.msg}
        if self.details:
            answer["details"] = self.details
        return answer

    def under(self, prefix: str) -> "CniError":
        """The same failure, told as part of a larger undertaking; a code that is not 999 keeps its text."""
        if self.code != INTERNAL:
            return self
        return CniError(f"{prefix}: {self.msg}", self.code, self.details)


class Interrupted(BaseException):
    """SIGTERM or SIGINT came: undo, answer, and end. Not an Exception, so that no `except Exception` swallows it."""


class StepFailed(CniError):
    """A command of a script ended with a status other than 0."""

    def __init__(self, step: Step, status: int, stderr: str, code: int = INTERNAL) -> None:
        self.step = step
        self.status = status
        self.stderr = stderr
        cause = kernel_words(stderr) or f"exit status {status}"
        told = step.error or step.argv[0]
        msg = told if told.endswith(".") else f"{told}: {cause}"
        details = f"`{step.command}` ended with status {status}: {stderr.strip() or 'no error text'}"
        super().__init__(msg, code, details)


def kernel_words(stderr: str) -> str:
    """The cause in an error text of ip, bridge, iptables …: its first line, without the tools' own framing.

    The netlink errors read as the reference plugins print them: `RTNETLINK answers: File exists` is `file exists`.
    """
    for line in stderr.splitlines():
        text = line.strip()
        for frame in ("RTNETLINK answers: ", "Error: "):
            if text.startswith(frame):
                text = text.removeprefix(frame).rstrip(".")
                return text[:1].lower() + text[1:]
        if text:
            return text
    return ""
