"""The page that starts the task, and the task."""

from django.urls import path

from examples.email_students import tasks, views

urlpatterns = [
    path("<slug:slug>/email_all_starter/", views.email_all_starter, name="email_all_starter"),
    # Only the queue gets past this one: anybody else is answered 403.
    path("<slug:slug>/email_all/", tasks.email_all, name="email_all"),
    # The same task over students that are selected in the admin, of whatever program.
    path("email_selected/", tasks.email_all, {"slug": "selected"}, name="email_selected"),
]
