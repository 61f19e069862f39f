"""Say how it stands: `python -m tests.chaos.report ID`; prints status, done, lost, doubled, letters as JSON."""

from __future__ import annotations

import json
import sys

import django

if __name__ == "__main__":
    django.setup()

    from django.db.models import Sum

    from soc_tasks import Iteration
    from soc_tasks.state import get_state
    from tests.specimen.models import Row

    iteration = Iteration.get(sys.argv[1])
    hits = Row.objects.filter(hits__gt=1).aggregate(total=Sum("hits"))["total"] or 0
    print(
        json.dumps(
            {
                "status": iteration.status,
                "done": iteration.done,
                "lost": Row.objects.filter(hits=0).count(),
                "doubled": hits - Row.objects.filter(hits__gt=1).count(),
                "iterations": len(Iteration.all()),
                "letters": len(get_state().list_dead_letters()),
            }
        )
    )
