"""What the commands' option parsers share; light enough for any command."""

from __future__ import annotations

import argparse
from typing import NoReturn

from freestyle.errors import UserError


class OneSentenceParser(argparse.ArgumentParser):
    """Says what is wrong with the options in one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of exit."""
        raise UserError(f"{message}: see {self.prog} --help")


def listed(text: str | None) -> list[str]:
    """Comma-separated values."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]
