"""The page with the totals, what starts a count, and the task."""

from django.urls import include, path

from examples.gazetteer_datastore import tasks, views

urlpatterns = [
    path("", views.gazetteer, name="gazetteer"),
    path("count/", views.count_starter, name="count_starter"),
    path("add_population/", tasks.add_population, name="add_population"),
    path("_tasks/", include("soc_tasks.urls")),
]
