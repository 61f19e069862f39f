"""URL patterns of the example project: pages, and tasks beside them."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import TemplateView

urlpatterns = [
    path("", TemplateView.as_view(template_name="examples/home.html"), name="home"),
    path("admin/", admin.site.urls),
    path("program/", include("examples.email_students.urls")),
    path("gazetteer/", include("examples.gazetteer.urls")),
    # The library's own views; the bars that show progress ask one of them.
    path("_tasks/", include("soc_tasks.urls")),
]
