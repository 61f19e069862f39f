"""Deliveries that come twice, as a queue that delivers at least once may have them."""

from __future__ import annotations

import io
import os
import random
import threading

from django.core.handlers.wsgi import WSGIRequest

#: Part of the deliveries that come again: half of them at the same time, half of them afterwards.
TWICE = float(os.environ.get("BARE_TWICE", "0"))
_draw = random.Random()


def deliver_some_twice(get_response):
    def deliver(request):
        if request.method != "POST" or _draw.random() >= TWICE:
            return get_response(request)
        body = request.body
        again = WSGIRequest({**request.environ, "wsgi.input": io.BytesIO(body)})
        thread = threading.Thread(target=get_response, args=(again,))
        if _draw.random() < 0.5:
            thread.start()
            response = get_response(request)
        else:
            response = get_response(request)
            thread.start()
        thread.join()
        return response

    return deliver
