"""Errors that a user can cause: one sentence, what to do, an exit code, never a traceback."""


class LockstepError(Exception):
    """A run or a check failed; whatever was done so far is kept."""

    exit_code = 1


class UsageError(LockstepError):
    """What was asked for cannot be done; nothing was started or written."""

    exit_code = 2
