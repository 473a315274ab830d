"""What the checks of a file found: stored as JSON, shown as text, refused as one error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from hippynn_mf.errors import UserError
from hippynn_mf.schema import Strict

Verdict = Literal["passed", "undecided", "noted", "accepted", "refused"]
N_SHOWN = 5  # structures that a text names


@dataclass(frozen=True)
class Accepted:
    """What a user has looked at and takes responsibility for.

    With `ignore_cell`, periodic structures are read as molecules.
    """

    outliers: bool = False
    charged: bool = False
    ignore_cell: bool = False


NOTHING = Accepted()


class Outcome(Strict):
    """What one check found of one level, or of the structures.

    Attributes:
        check: its name.
        level: id of the level, None for what is no level's.
        verdict: passed; undecided, the data cannot tell; noted, to be looked at; accepted, it would
            be refused without an option; refused.
        text: what was found, as a sentence.
        values: the figures behind it, None where there is none.
    """

    check: str
    level: str | None = None
    verdict: Verdict
    text: str
    values: dict[str, float | int | None] = Field(default_factory=dict)


class CheckReport(Strict):
    """The outcomes of all checks of a file, in their order."""

    source: str
    outcomes: tuple[Outcome, ...]

    def refuse(self) -> None:
        """Raise UserError with everything that is refused."""
        refused = [outcome.text for outcome in self.outcomes if outcome.verdict == "refused"]
        if refused:
            raise UserError(f"{self.source}: {' '.join(refused)}")

    def of(self, check: str, level: str | None = None) -> Outcome | None:
        """The outcome of a check, None if it was not made."""
        found = (o for o in self.outcomes if o.check == check and o.level == level)
        return next(found, None)

    @property
    def remarks(self) -> list[str]:
        """Texts of what did not simply pass."""
        return [outcome.text for outcome in self.outcomes if outcome.verdict != "passed"]

    def text(self) -> str:
        """A line for every outcome, as a table."""
        width = max([14, *(len(outcome.level or "") + 2 for outcome in self.outcomes)])
        rows = [
            f"  {o.check:<14}{o.level or '':<{width}}{o.verdict:<11}{o.text}" for o in self.outcomes
        ]
        return "\n".join([f"  {'check':<14}{'level':<{width}}{'verdict':<11}found", *rows])


def list_some(names: Sequence[str]) -> str:
    """The first names, and that there are more."""
    return ", ".join(names[:N_SHOWN]) + (", …" if len(names) > N_SHOWN else "")
