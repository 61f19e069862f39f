"""The progress of an iteration as JSON, to be polled by a page: a token stands in for a login."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden, JsonResponse
from django.urls import NoReverseMatch, reverse
from django.utils import translation
from django.views.decorators.http import require_GET

from soc_tasks.errors import ConfigurationError
from soc_tasks.logic.progress import read_progress
from soc_tasks.logic.progress_tokens import MAX_AGE, BadTokenError, Permit, find_id, make_token, read_token
from soc_tasks.views.decorators import EveryAlias
from soc_tasks.views.progress_texts import write_texts

logger = logging.getLogger("soc_tasks")


@login_not_required
@require_GET
def progress(request: HttpRequest, token: str) -> HttpResponse:
    """Return the progress that a token lets its holder see: 403 without a body for any other."""
    response: HttpResponse
    try:
        permit = read_token(token)
    except BadTokenError as error:
        logger.info("a look at the progress of an iteration is refused: %s", error)
        response = HttpResponseForbidden()
    else:
        found = read_progress(permit.iteration)
        with _speak(permit.language):
            response = JsonResponse({**found.as_dict(shards=permit.shards), "text": write_texts(found)})
    response["Cache-Control"] = "no-store"
    return response


# A look must not hold the database: with ATOMIC_REQUESTS on SQLite, each would wait for whoever writes.
progress._non_atomic_requests = EveryAlias()  # type: ignore[attr-defined]


def progress_url(iteration: Any, *, max_age: float = MAX_AGE, language: str | None = None, shards: bool = False) -> str:
    """Return the path at which the progress of an iteration can be read, by anybody who has it.

    Args:
        iteration: what `startTask` returned, its `iteration`, or an `Iteration`.
        max_age: seconds for which it can be read.
        language: of the texts; None: the one that is active now.
        shards: whether each shard is shown, too, and why it is held back: not for everybody's eyes.

    Raises:
        ConfigurationError: the library's URLs are not part of the site.
        TypeError, ValueError: there is no iteration to show.
    """
    spoken = translation.get_language() if language is None else language
    permit = Permit(iteration=find_id(iteration), language=spoken or "", shards=shards)
    try:
        return reverse("tasks_progress", args=[make_token(permit, max_age)])
    except NoReverseMatch as error:
        raise ConfigurationError(
            'Progress is read at a URL of the library: add path("_tasks/", include("soc_tasks.urls")) to the '
            "urlpatterns of ROOT_URLCONF."
        ) from error


def _speak(language: str) -> AbstractContextManager[Any]:
    """Use the language of the page that shows the progress: this path tells nothing of it."""
    return translation.override(language) if language else nullcontext()
