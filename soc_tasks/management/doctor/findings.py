"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Args:
        family: the family of checks.
        level: "ok", "warn" or "fail": tasks do not run, or may be lost.
        message: what is so.
        mend: the command or setting that puts it right, or "".
        id: of the system check that tells the same, or "".
    """

    family: str
    level: str
    message: str
    mend: str = ""
    id: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}
