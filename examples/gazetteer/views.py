"""The totals beside the truth, and the button that counts anew."""

from uuid import uuid4

from django.contrib.admin.views.decorators import staff_member_required
from django.db import transaction
from django.db.models import Count, Sum
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

from examples.gazetteer.models import City, Country
from soc_tasks import startTask


@require_GET
def gazetteer(request):
    """Show what the task has counted beside what a plain SUM says."""
    return _show(request)


@require_POST
@staff_member_required
def count_starter(request):
    """Set the totals to zero and start the count: both or, if anything fails, neither."""
    count_id = uuid4().hex
    with transaction.atomic():
        Country.objects.update(population=0, cities=0, count_id=count_id)
        handle = startTask("add_population", {"count_id": count_id})
    return _show(request, handle)


def _show(request, handle=None):
    sums = {
        row["country"]: row
        for row in City.objects.values("country").annotate(population=Sum("population"), cities=Count("pk"))
    }
    rows = [
        {
            "country": country,
            "sum": sums[country.pk],
            "percent": 100 * country.cities // sums[country.pk]["cities"],
            "matches": country.population == sums[country.pk]["population"]
            and country.cities == sums[country.pk]["cities"],
        }
        for country in Country.objects.filter(pk__in=sums)
    ]
    rows.sort(key=lambda row: row["sum"]["population"], reverse=True)
    page = {
        "rows": rows,
        "counted": Country.objects.aggregate(population=Sum("population", default=0), cities=Sum("cities", default=0)),
        "truth": City.objects.aggregate(population=Sum("population", default=0), cities=Count("pk")),
        "matches": all(row["matches"] for row in rows),
        "handle": handle,
    }
    return render(request, "gazetteer/gazetteer.html", page)
