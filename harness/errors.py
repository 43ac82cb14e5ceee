"""Errors that a user can cause: one sentence, what to do, an exit code, never a traceback."""

MOST_CHARACTERS = 300
"""That are repeated of what another program says."""


class LockstepError(Exception):
    """A run or a check failed; whatever was done so far is kept."""

    exit_code = 1


class UsageError(LockstepError):
    """What was asked for cannot be done; nothing was started or written."""

    exit_code = 2


def one_line(said: object) -> str:
    """What another program or a file said, as a part of one sentence."""
    text = str(said) or type(said).__name__
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]} ..."
