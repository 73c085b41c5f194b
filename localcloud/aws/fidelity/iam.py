"""Policies are read as IAM reads them."""

from __future__ import annotations

import re
from collections.abc import Callable

from moto.iam.access_control import IAMPolicyStatement

from localcloud.aws.fidelity.patch import around


def mend() -> None:
    @around(IAMPolicyStatement, "_match")
    def wildcards_are_not_regular_expressions(
        _: Callable[[str, str], object], pattern: str, string: str
    ) -> re.Match[str] | None:
        """AWS: `*` stands for any characters, `?` for one, everything else for itself (IAM User
        Guide, "IAM JSON policy elements: Resource"); `…:secret:name-??????` is the form that the
        Secrets Manager guide recommends. moto: reads the pattern as a regular expression, in which
        that form is an error (500), and a `.` any character."""
        parts = ({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern)
        return re.fullmatch("".join(parts), string, re.DOTALL)
