"""The page of the program's office."""

from django.contrib.admin.views.decorators import staff_member_required
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_http_methods

from examples.email_students.forms import MessageForm
from examples.email_students.models import Program
from soc_tasks import startTask


@require_http_methods(["GET", "POST"])
@staff_member_required
def email_all_starter(request, slug):
    """Show the form; on POST start the task and show the page as usual, without waiting for a single mail."""
    program = get_object_or_404(Program, slug=slug)
    form = MessageForm(request.POST or None)
    handle = None
    if request.method == "POST" and form.is_valid():
        context = {
            # What the iteration goes over: a name registered in apps.py, and plain fields of its model.
            "logic": "soc.logic.models.student",
            "filter": {"program": program.pk},
            # What the task needs beside it.
            "subject": form.cleaned_data["subject"],
            "body": form.cleaned_data["body"],
        }
        handle = startTask("email_all", context, queue="mail", url_kwargs={"slug": program.slug})
    page = {"program": program, "students": program.students.count(), "form": form, "handle": handle}
    return render(request, "email_students/email_all_starter.html", page)
