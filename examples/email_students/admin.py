"""Programs and students in Django's admin."""

from django.contrib import admin

from examples.email_students.forms import MessageForm
from examples.email_students.models import Program, Student
from soc_tasks.admin import run_over_selection


@admin.register(Program)
class ProgramAdmin(admin.ModelAdmin):
    list_display = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}  # noqa: RUF012 - Django's own way to say it


@admin.register(Student)
class StudentAdmin(admin.ModelAdmin):
    list_display = ("name", "email", "program")
    list_filter = ("program",)
    search_fields = ("name", "email")
    # Mail to the students that are selected, or to all that the filters let through.
    actions = (
        run_over_selection("email_selected", form=MessageForm, queue="mail", description="E-mail selected students"),
    )
