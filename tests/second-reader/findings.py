"""What can be wrong with a vault, in three kinds, and the list of what was found on the way."""

from __future__ import annotations

import sys


class VaultError(Exception):
    """Reading cannot go on. The text names the thing and what is wrong with it."""


class Damaged(VaultError):
    """Bytes that are missing or are not what their writer made. Another copy may still do."""


class Unknown(VaultError):
    """A number, kind or feature that this reader does not know: always refused, never stepped over."""


class Findings:
    """What did not stop the reading but must be said: on stderr at once, and by exit code 3 at the end."""

    def __init__(self) -> None:
        self.texts: dict[str, None] = {}

    def add(self, text: str) -> None:
        if text not in self.texts:
            self.texts[text] = None
            print(f"finding: {text}", file=sys.stderr)
