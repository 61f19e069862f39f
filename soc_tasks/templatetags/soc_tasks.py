"""`{% load soc_tasks %}`: a live bar of an iteration's progress."""

from __future__ import annotations

from typing import Any

from django import template
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from soc_tasks.logic.progress import read_progress
from soc_tasks.logic.progress_tokens import MAX_AGE, find_id
from soc_tasks.views.progress import progress_url
from soc_tasks.views.progress_texts import write_texts

register = template.Library()

#: Where the page being rendered notes that it has script and style.
_MEDIA = "soc_tasks.progress"


@register.simple_tag(takes_context=True)
def iteration_progress(
    context: template.Context, iteration: Any, label: str = "", max_age: float = MAX_AGE
) -> SafeString | str:
    """Show a bar that keeps itself up to date: `{% iteration_progress handle label="Sending mail" %}`.

    Args:
        context: of the template.
        iteration: what `startTask` returned, its `iteration`, or an `Iteration`; nothing is shown for None and "".
        label: what is being done; "": "Progress".
        max_age: seconds for which the bar may ask.

    Raises:
        ConfigurationError: the library's URLs are not part of the site.
        TypeError, ValueError: there is no iteration to show.
    """
    if iteration is None or iteration == "":
        return ""
    progress = read_progress(find_id(iteration))
    values = {
        "url": progress_url(iteration, max_age=max_age),
        "progress": progress,
        # As HTML writes numbers, whatever the language.
        "share": "" if progress.share is None else f"{progress.share:.4f}",
        "text": write_texts(progress),
        "label": label,
    }
    # In a context of its own: what is shown is escaped, even where the page has that turned off.
    return render_to_string("soc_tasks/iteration_progress.html", values) + iteration_progress_media(context)


@register.simple_tag(takes_context=True)
def iteration_progress_media(context: template.Context) -> SafeString:
    """Load script and style of the bars here, in the page's head for instance; else the first bar does so.

    Args:
        context: of the template.
    """
    if context.render_context.get(_MEDIA):
        return SafeString()
    context.render_context[_MEDIA] = True
    # Django's own nonce, where the page has one: asked as a text, for it is made when it is asked for.
    nonce = context.get("csp_nonce")
    return render_to_string("soc_tasks/iteration_progress_media.html", {"nonce": "" if nonce is None else str(nonce)})
