"""As much of a browser as the demo needs: cookies, and forms with the token that the page holds."""

from __future__ import annotations

import re
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar

TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


class BrowserError(Exception):
    """The site did not answer as it should."""


class Browser:
    """Keep cookies from page to page.

    Args:
        site: http://host:port of the site.
    """

    def __init__(self, site: str) -> None:
        self.site = site
        # No proxy: the site is on this machine, whatever the environment says of others.
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(CookieJar()), urllib.request.ProxyHandler({})
        )

    def get(self, path: str) -> str:
        """Return a page."""
        return self._open(path, None)

    def submit(self, path: str, fields: dict[str, str], *, action: str | None = None) -> str:
        """Fill in the form of a page and send it; return the page that answers.

        Args:
            path: the page that holds the form.
            fields: what is filled in.
            action: where the form goes, if not to its own page.
        """
        token = TOKEN.search(self.get(path))
        if token is None:
            raise BrowserError(f"{path} holds no form; is the user logged in?")
        data = urllib.parse.urlencode({"csrfmiddlewaretoken": token[1], **fields}).encode()
        return self._open(action or path, data)

    def log_in(self, username: str, password: str) -> None:
        """Log in at Django's admin."""
        page = self.submit("/admin/login/?next=/admin/", {"username": username, "password": password})
        if 'id="login-form"' in page:
            raise BrowserError(f"The site does not let {username!r} in.")

    def _open(self, path: str, data: bytes | None) -> str:
        request = urllib.request.Request(self.site + path, data)  # noqa: S310 - http, to our own server
        try:
            with self._opener.open(request, timeout=30) as response:
                return response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                raise BrowserError(f"{request.get_method()} {path} is answered {error.code}.") from error
        except OSError as error:
            raise BrowserError(f"{request.get_method()} {path} is not answered: {error}") from error
