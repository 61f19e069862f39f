"""URL patterns of the test site."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from tests import site

urlpatterns = [
    path("tasks/behave/", site.behave, name="behave"),
    path("tasks/behave/<slug:slug>/", site.behave, name="behave_slug"),
    path("tasks/atomic/", site.behave_atomic, name="behave_atomic"),
    path("tasks/picky/", site.behave_picky, name="behave_picky"),
    path("tasks/superusers/", site.for_superusers, name="for_superusers"),
    path("tasks/staff/", site.for_staff, name="for_staff"),
    path("tasks/cron/", site.for_cron, name="for_cron"),
    path("tasks/early/", site.early, name="early"),
    path("tasks/iterate/", site.iterate, name="iterate"),
    path("tasks/iterate/<slug:slug>/", site.iterate, name="iterate_slug"),
    path("tasks/iterate-atomic/", site.iterate_atomic, name="iterate_atomic"),
    path("tasks/iterate-again/", site.iterate_again, name="iterate_again"),
    path("tasks/iterate-slowly/", site.iterate_slowly, name="iterate_slowly"),
    path("tasks/rows/", site.rows, name="rows"),
    path("tasks/rows-in-shards/", site.rows_in_shards, name="rows_in_shards"),
    path("tasks/bound/<slug:slug>/", site.bound, name="bound"),
    path("tasks/decorated/<slug:slug>/", site.methods.decorated, name="decorated"),
    path("tasks/iterating/<slug:slug>/", site.methods.iterating, name="iterating"),
    path("ordinary/", site.ordinary, name="ordinary"),
    path("guarded/", site.guarded, name="guarded"),
    path("guarded-or-superuser/", site.guarded_or_superuser, name="guarded_or_superuser"),
    path("admin/", admin.site.urls),
    path("_tasks/", include("soc_tasks.urls")),
]
