"""Changelists with every kind of filter and search, and actions that run tasks over them."""

from __future__ import annotations

from django import forms
from django.contrib import admin
from django.db.models import Count

from soc_tasks.admin import TaskActionsMixin, run_over_selection
from tests.specimen.models import Entry, Tag


class WordForm(forms.Form):
    word = forms.CharField(min_length=3)
    number = forms.IntegerField(initial=1)


@admin.register(Entry)
class EntryAdmin(TaskActionsMixin, admin.ModelAdmin):
    list_display = ("code", "count", "tag_number")
    list_filter = ("flag", "count", "tags")
    search_fields = ("code", "tags__name")
    date_hierarchy = "day"
    list_per_page = 5
    actions = (
        run_over_selection("iterate_slug", url_kwargs={"slug": "spring"}, form=WordForm, name="with_form"),
        run_over_selection("iterate_slowly", name="slowly"),
        run_over_selection("rows", name="of_another_model"),
        run_over_selection("early", name="of_no_model"),
    )

    def get_queryset(self, request):
        return super().get_queryset(request).annotate(tag_number=Count("tags")).select_related("program")

    def tag_number(self, entry):
        return entry.tag_number


@admin.register(Tag)
class TagAdmin(TaskActionsMixin, admin.ModelAdmin):
    pass
