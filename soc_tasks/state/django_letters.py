"""Dead letters in Django's databases: how they are found among a hundred thousand."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from django.db.models import QuerySet

from soc_tasks.models import DeadLetterRow
from soc_tasks.state.records import DeadLetter, LetterGroup
from soc_tasks.state.rows import read_task


def read_letter(row: DeadLetterRow) -> DeadLetter:
    """Return a row as a record."""
    return DeadLetter(
        id=row.pk,
        task=read_task(row),
        attempts=row.attempts,
        error_type=row.error_type,
        error=row.error,
        traceback=row.traceback,
        created=row.created,
    )


def select_letters(alias: str, queue: str | None, error_type: str | None) -> QuerySet[DeadLetterRow]:
    """Return the dead letters of a queue, or of all, and of an error, or of any."""
    wanted = {"queue": queue, "error_type": error_type}
    return DeadLetterRow.objects.using(alias).filter(
        **{name: value for name, value in wanted.items() if value is not None}
    )


class DjangoLetters:
    """Finds dead letters on `DATABASE`."""

    @property
    @abstractmethod
    def alias(self) -> str:
        """Return the alias of the tables."""

    def list_dead_letters(
        self,
        *,
        queue: str | None = None,
        error_type: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[DeadLetter]:
        """Return the newest dead letters."""
        rows = select_letters(self.alias, queue, error_type).order_by("-pk")
        if before is not None:
            rows = rows.filter(pk__lt=before)
        return [read_letter(row) for row in rows[:limit]]

    def get_dead_letter(self, letter_id: int) -> DeadLetter | None:
        """Return one dead letter."""
        row = DeadLetterRow.objects.using(self.alias).filter(pk=letter_id).first()
        return None if row is None else read_letter(row)

    def delete_dead_letters(self, ids: Sequence[int]) -> int:
        """Drop dead letters."""
        return DeadLetterRow.objects.using(self.alias).filter(pk__in=ids).delete()[0]

    def delete_letters_of(self, iteration_id: str) -> None:
        """Drop the dead letters of an iteration that goes on."""
        DeadLetterRow.objects.using(self.alias).filter(iteration=iteration_id).delete()

    def group_dead_letters(self, *, most: int, cap: int) -> tuple[list[LetterGroup], bool]:
        """Return how many there are of each class of error, jumping from one to the next in the index."""
        found: list[LetterGroup] = []
        last = ""
        rows = DeadLetterRow.objects.using(self.alias)
        if rows.filter(error_type="").exists():
            found.append(self._group("", cap))
        while len(found) < most:
            kinds = rows.filter(error_type__gt=last).order_by("error_type").values_list("error_type", flat=True)
            kind = kinds.first()
            if kind is None:
                return found, True
            found.append(self._group(kind, cap))
            last = kind
        return found, not rows.filter(error_type__gt=last).exists()

    def _group(self, error_type: str, cap: int) -> LetterGroup:
        newest = DeadLetterRow.objects.using(self.alias).filter(error_type=error_type).order_by("-pk")
        values = newest.values_list("error", "created").first() or ("", None)
        return LetterGroup(
            error_type=error_type,
            number=newest.values("pk")[: cap + 1].count(),
            error=values[0],
            newest=values[1],
        )
