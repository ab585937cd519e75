"""The one error type that users see as a sentence instead of a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input from outside: the message names the file or option and the remedy.

    Library callers catch it like a ``ValueError``; the command line prints the message and exits
    with code 2.
    """
