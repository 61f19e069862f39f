"""Users of the console, and what they see."""

from __future__ import annotations

from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

ALL = ("view_console", "operate", "start", "view_payloads")


def make_user(*codenames, name="operator"):
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames, content_type__app_label="soc_tasks"))
    return user


def log_in(*codenames, name="operator", **options):
    client = Client(**options)
    client.force_login(make_user(*codenames, name=name))
    return client


def url(name, *args):
    return reverse(f"admin:soc_tasks_console_{name}", args=args)


def messages_of(response):
    return [str(message) for message in response.context["messages"]]
