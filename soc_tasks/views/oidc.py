"""OIDC tokens: what proves a call of Cloud Tasks by HTTP, or of Cloud Scheduler. Verified to the last claim.

google.oauth2.id_token.verify_oauth2_token alone lets any Google account in, e-mail addresses that nobody verified,
tokens from the future and of any length of life, and fetches the keys for every call (google-auth 2.62, measured). So
only its RS256 is used, and the rest is here.

The keys are a map of key id to PEM certificate, as https://www.googleapis.com/oauth2/v1/certs serves it.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from typing import Any, Final
from urllib.error import HTTPError

logger = logging.getLogger("soc_tasks")

#: What Google's tokens name as their issuer (developers.google.com/identity/openid-connect/openid-connect).
GOOGLE_ISSUERS: Final = ("https://accounts.google.com", "accounts.google.com")
#: Seconds that the clocks of both sides may be apart.
SKEW: Final = 10
#: Seconds for which Google's tokens are good (recorded: exp is iat + 3600).
LIFETIME: Final = 3600
#: Characters of a header that is read at all; Google's have some 1,000.
MAX_HEADER: Final = 8000
MAX_KEY_ID: Final = 200

#: Seconds between two fetches of the keys, and where none are at hand.
PAUSE: Final = 60.0
RETRY_PAUSE: Final = 5.0
#: Seconds for which keys are kept, whatever their server says, and for which they serve beyond that if it is not to be
#: reached.
SHORTEST_KEEP, LONGEST_KEEP = 60.0, 86400.0
STALE: Final = 86400.0
#: Seconds without an answer of the keys' server, and bytes of its answer.
TIMEOUT: Final = 5.0
MAX_BYTES: Final = 1_000_000

_BEARER = re.compile(r"Bearer ([\w-]+)\.([\w-]+)\.([\w-]+)", re.ASCII)
_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=\"?(\d{1,9})", re.ASCII | re.IGNORECASE)


class TokenError(Exception):
    """The token proves nothing."""


class KeysUnavailableError(Exception):
    """There are no keys to judge a token by; they may be there in a while."""


#: Returns the certificates by key id, and the seconds for which they may be kept.
Fetch = Callable[[], tuple[Mapping[str, str], float]]


@dataclass(frozen=True, slots=True)
class _Held:
    """The keys of one fetch.

    Args:
        verifiers: by key id.
        fresh_until: when they are to be fetched anew (monotonic).
    """

    verifiers: Mapping[str, Any] = field(default_factory=dict)
    fresh_until: float = -math.inf

    def find(self, key_id: str, now: float, beyond: float) -> Any:
        """Return the verifier of a key, or None where it is unknown, or older than allowed."""
        return self.verifiers.get(key_id) if now < self.fresh_until + beyond else None


class Keys:
    """The public keys of an issuer: fetched by one thread at a time, once a minute at most.

    Args:
        fetch: gets them.
        monotonic: seconds on a clock that nobody sets.
    """

    def __init__(self, fetch: Fetch, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._held = _Held()
        self._tried = -math.inf

    def find(self, key_id: str) -> Any:
        """Return what verifies signatures by a key.

        Raises:
            TokenError: there is no such key.
            KeysUnavailableError: it cannot be told.
        """
        verifier = self._held.find(key_id, self._monotonic(), 0)
        if verifier is not None:
            return verifier
        stale = self._held.find(key_id, self._monotonic(), STALE)
        # Where a key still serves, nobody waits for the thread that fetches.
        if self._lock.acquire(blocking=stale is None):
            try:
                self._refresh(key_id)
            finally:
                self._lock.release()
        held, now = self._held, self._monotonic()
        verifier = held.find(key_id, now, STALE)
        if verifier is not None:
            return verifier
        if now < held.fresh_until:
            raise TokenError("its key is unknown")
        raise KeysUnavailableError("the keys that tokens are judged by cannot be fetched")

    def _refresh(self, key_id: str) -> None:
        """Fetch the keys, unless another thread just did."""
        held, now = self._held, self._monotonic()
        pause = PAUSE if now < held.fresh_until + STALE else RETRY_PAUSE
        if held.find(key_id, now, 0) is not None or now - self._tried < pause:
            return
        self._tried = now
        try:
            certificates, keep = self._fetch()
            verifiers = _make_verifiers(certificates)
        except Exception as error:  # whatever goes wrong there, older keys may serve
            logger.warning("the keys that OIDC tokens are judged by could not be fetched: %r", error)
            return
        self._held = _Held(verifiers, self._monotonic() + min(max(keep, SHORTEST_KEEP), LONGEST_KEEP))


def _make_verifiers(certificates: Mapping[str, str]) -> dict[str, Any]:
    """Return what verifies RS256 signatures, by key id.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    from google.auth.crypt import RSAVerifier

    if not isinstance(certificates, Mapping) or not certificates:
        raise ValueError("they are no map of key ids to certificates")
    read: Callable[[str], Any] = RSAVerifier.from_string
    return {key_id: read(pem) for key_id, pem in certificates.items()}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Keys come from where the settings say, or not at all."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Message, newurl: str) -> None:
        return None


def fetch_certificates(url: str) -> tuple[Mapping[str, str], float]:
    """Fetch the certificates from their server.

    Args:
        url: https, or http on this machine; the settings were checked for that.

    Raises:
        OSError: the server is not to be reached, or answers with an error.
        ValueError: its answer is none.
    """
    # What is on this machine is not asked for by a proxy.
    handlers = [urllib.request.ProxyHandler({})] if url.lower().startswith("http:") else []
    try:
        with urllib.request.build_opener(_NoRedirect, *handlers).open(url, timeout=TIMEOUT) as answer:
            text = answer.read(MAX_BYTES + 1)
            headers = answer.headers
    except HTTPError as error:
        error.close()
        raise
    if len(text) > MAX_BYTES:
        raise ValueError(f"the answer has over {MAX_BYTES:,} bytes")
    return json.loads(text), _read_keep(headers.get("Cache-Control", ""), headers.get("Age", ""))


def _read_keep(cache_control: str, age: str) -> float:
    """Return the seconds for which an answer may be kept (RFC 9111, 5.2.2.1 and 5.1)."""
    match = _MAX_AGE.search(cache_control)
    kept = int(age) if re.fullmatch(r"\d{1,9}", age, re.ASCII) else 0
    return float(int(match[1]) - kept) if match is not None else 0.0


_made: dict[str, Keys] = {}


def get_keys(url: str) -> Keys:
    """Return this process's keys from a URL."""
    # In one step: all threads get those that came first.
    return _made.get(url) or _made.setdefault(url, Keys(partial(fetch_certificates, url)))


def forget_keys(url: str) -> None:
    """Keep no keys from a URL any more: another server may be there."""
    _made.pop(url, None)


def read_email(authorization: str, *, issuers: Sequence[str], audience: str, keys: Keys, now: float) -> str:
    """Return the verified e-mail address of the account that a token was made for.

    Args:
        authorization: value of the Authorization header, whatever it holds.
        issuers: who may have made it.
        audience: whom it must be made for.
        keys: the issuer's.
        now: seconds since the epoch.

    Raises:
        TokenError: it proves nothing.
        KeysUnavailableError: it cannot be judged.
    """
    # One of two Authorization headers holds a comma, as servers join them, or is all there is.
    match = _BEARER.fullmatch(authorization) if len(authorization) <= MAX_HEADER else None
    if match is None:
        raise TokenError("it is no bearer token")
    header, payload, signature = match.groups()
    verifier = keys.find(_read_key_id(_read_part(header)))
    try:
        genuine = verifier.verify(f"{header}.{payload}".encode("ascii"), _decode(signature))
    except Exception as error:  # a key of another kind, a signature that is none
        raise TokenError(f"its signature cannot be judged: {error!r}") from error
    if genuine is not True:
        raise TokenError("its signature does not fit")
    claims = _read_part(payload)
    _check_times(claims, now)
    if claims.get("iss") not in issuers:
        raise TokenError("it is by another issuer")
    if claims.get("aud") != audience:
        # A list of audiences is none, even if ours is among them.
        raise TokenError("it is for another audience")
    email = claims.get("email")
    if not isinstance(email, str) or not email or claims.get("email_verified") is not True:
        raise TokenError("it has no verified e-mail address")
    return email


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _read_part(part: str) -> dict[str, Any]:
    try:
        values = json.loads(_decode(part))
    except (ValueError, RecursionError) as error:
        raise TokenError("it cannot be read") from error
    if not isinstance(values, dict):
        raise TokenError("it cannot be read")
    return values


def _read_key_id(header: Mapping[str, Any]) -> str:
    # RFC 7515, 4.1.11: who does not know what is critical refuses it.
    if header.get("alg") != "RS256" or "crit" in header:
        raise TokenError("it is not signed by RS256")
    key_id = header.get("kid")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID:
        raise TokenError("it names no key")
    return key_id


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    issued, expires = claims.get("iat"), claims.get("exp")
    begins = claims.get("nbf", issued)
    # True is an int to Python, and no time.
    if type(issued) is not int or type(expires) is not int or type(begins) is not int:
        raise TokenError("its times are no whole numbers")
    if expires + SKEW < now:
        raise TokenError("it has expired")
    if max(issued, begins) > now + SKEW:
        raise TokenError("it is of the future")
    if not 0 < expires - issued <= LIFETIME + SKEW:
        raise TokenError("it is good for too long")
