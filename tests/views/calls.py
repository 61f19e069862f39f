"""Calls to the test site, as the queue makes them."""

from __future__ import annotations

import types

from django.test import Client, override_settings
from django.urls import path

from soc_tasks.meta import Meta
from soc_tasks.values import DELIVERY_KEY, Delivery

META = Meta(start_id="0" * 32).to_header()


def delivery(**more):
    return {DELIVERY_KEY: Delivery(queue="default", name="made", **more)}


def deliver(url, **more):
    """Make a call as the queue makes it."""
    return Client().generic("POST", url, headers={"X-SocTasks-Meta": META}, **delivery(**more))


def route(view, **options):
    """Serve `view` alone, under /view/, for the block."""
    conf = types.ModuleType("made_urls")
    conf.urlpatterns = [path("view/", view, name="view")]
    return override_settings(ROOT_URLCONF=conf, **options)


def refused(response):
    return response.status_code == 403 and response.content == b"" and not response.has_header("X-SocTasks-Outcome")
