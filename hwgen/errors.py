"""The exception for a mistake in what the user gave us."""

from collections.abc import Sequence


class InputError(Exception):
    """One input is wrong; every problem found in it is reported at once.

    Args:
        problems: sentences, each naming what is wrong, where, and what to do about it.
        subject: the file or object the problems belong to, printed first when given.
    """

    def __init__(self, problems: Sequence[str] | str, subject: str | None = None) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        self.subject = subject
        super().__init__(str(self))

    def __str__(self) -> str:
        head = [f"{self.subject}:"] if self.subject else []
        indent = "  " if self.subject else ""
        return "\n".join(head + [f"{indent}{problem}" for problem in self.problems])


class ToldError(InputError):
    """A mistake that another process of the same run tells."""
