"""Which releases of the tenants' schema this version of the application works with.

A rollout reaches one tenant after the other, so for hours a fleet is on two releases, and a version of
the application that is deployed or rolled back meanwhile may know only one of them. Each entry carries
its tenant's release; the application says what it can serve, and whoever is outside of that gets an
honest 503 in place of a request that fails in the middle.

    0003..0005    from the one to the other      0003..    that one and every later one
    0004          that one alone                 ..0005    that one and every earlier one

Without a range every tenant is served. With one, a tenant whose release is not known is not: nobody can
say that it fits. `tests/vectors/releases.json` holds the cases that Python and TypeScript read alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGE = re.compile(r"([0-9]{4})?\.\.([0-9]{4})?")
_NUMBER = re.compile(r"[0-9]{4}")
EXPECTED = "releases such as 0003..0005, 0003.., ..0005 or 0004"


@dataclass(frozen=True, slots=True)
class Releases:
    """From `least` to `most`, both included; None: no end on that side, and without both every tenant is
    served, also one whose release is not known."""

    least: str | None = None
    most: str | None = None

    @classmethod
    def parse(cls, text: str) -> Releases:
        """Raises ValueError, saying what was expected."""
        one, between = _NUMBER.fullmatch(text), _RANGE.fullmatch(text)
        least, most = (text, text) if one else between.groups() if between else (None, None)
        if (least is None and most is None) or (least is not None and most is not None and least > most):
            raise ValueError(f"expected {EXPECTED}, got {text[:80]!r}")
        return cls(least, most)

    def serve(self, release: str | None) -> bool:
        """Does this version of the application work with a database of that release?"""
        if self.least is None and self.most is None:
            return True
        if release is None or not _NUMBER.fullmatch(release):
            return False
        return (self.least or release) <= release <= (self.most or release)


ALL = Releases()
