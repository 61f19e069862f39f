"""A deferred call as a text that nobody else can make: a function with its arguments, and our signature."""

from __future__ import annotations

import hashlib
import hmac
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import FunctionType
from typing import Any, Final, NamedTuple

from django.conf import settings as django_settings
from django.utils.crypto import constant_time_compare
from django.utils.encoding import force_bytes

from soc_tasks.errors import PayloadError
from soc_tasks.logic import payloads
from soc_tasks.logic.arguments import Arguments
from soc_tasks.logic.payloads import UnknownNameError
from soc_tasks.state.transactions import is_known

#: Of the text's form. A release reads its own, and those before.
VERSION: Final = 1
#: Bytes of a call's text.
MOST_BYTES: Final = 16 * 2**20
_SALT: Final = "soc_tasks.logic.calls"
_FIELDS: Final = {"version": int, "function": object, "args": list, "kwargs": dict, "atomic": bool, "using": str}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function that is to be called.

    Args:
        function: what is called.
        args, kwargs: with what.
        atomic: whether what it does in the database and its receipt commit together.
        using: alias of that transaction.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    atomic: bool = False
    using: str = "default"

    def check_arguments(self) -> None:
        """Raise TypeError unless the function can be called with the arguments."""
        if _surely_takes(self.function, self.args, self.kwargs):
            return
        try:
            # Its own, and not that of what it wraps: a decorator may hand on other arguments than it takes.
            signature = inspect.signature(self.function, follow_wrapped=False)
        except (TypeError, ValueError):
            # Some of those written in C have none; nor has what lru_cache makes.
            return
        try:
            signature.bind(*self.args, **self.kwargs)
        except TypeError as error:
            raise TypeError(f"{describe(self.function)} cannot be called with these arguments: {error}") from None

    def make(self) -> None:
        """Call the function; what it returns is nobody's.

        Raises:
            RuntimeError: it called `sys.exit()`, which must end the attempt and not the worker's thread.
            TypeError: it is async behind a decorator.
            Exception: what it raised.
        """
        try:
            result = self.function(*self.args, **self.kwargs)
        except SystemExit as error:
            # Its name alone: the arguments are nobody's business in a log.
            raise RuntimeError(f"{describe(self.function)} called sys.exit()") from error
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(f"{describe(self.function)} returned a coroutine, which is not waited for.")


def _surely_takes(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether a plain function takes arguments, far faster than by its signature; False: that must tell."""
    if type(function) is not FunctionType or function.__dict__:
        # A decorator left something there, another signature perhaps.
        return False
    code, given = function.__code__, len(args)
    count, names = code.co_argcount, code.co_varnames
    if given > count and not code.co_flags & CO_VARARGS:
        return False
    unnamed, only = code.co_posonlyargcount, names[count : count + code.co_kwonlyargcount]
    needed = names[given : count - len(function.__defaults__ or ())]
    must = {*needed, *only} - (function.__kwdefaults__ or {}).keys()
    if code.co_flags & CO_VARKEYWORDS:
        # Any name but one that has its value: those without a name of their own are missing, whatever is named so.
        free = kwargs.keys().isdisjoint(names[unnamed : min(given, count)])
        return free and must <= kwargs.keys() and must.isdisjoint(names[:unnamed])
    return must <= kwargs.keys() <= {*names[max(given, unnamed) : count], *only}


def describe(function: Any) -> str:
    """Return the dotted name of a function, for people."""
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', '?')}.{name}"


class Written(NamedTuple):
    """A call as typed JSON; `is_private` if it must not stand in a message: it holds a query."""

    text: str
    is_private: bool


def write_call(call: Call, *, related: bool = False) -> Written:
    """Return a call as typed JSON.

    Args:
        call: the call.
        related: whether instances travel with those in their caches.

    Raises:
        PayloadError: the function or an argument cannot travel; the message says which, as in `kwargs["report"].owner`.
    """
    more = Arguments(related=related)
    values = {
        "version": VERSION,
        "function": payloads.pack(call.function, "the function", more),
        # What an argument may hold does not depend on where it stands.
        "args": payloads.pack(list(call.args), "args", more, within=1),
        # The names of arguments may look like tags.
        "kwargs": payloads.pack(call.kwargs, "kwargs", more, within=1),
        "atomic": call.atomic,
        "using": call.using,
    }
    text = payloads.encode(values)
    if len(text) > MOST_BYTES:
        raise PayloadError(
            f"The arguments take {len(text):,} bytes, and {MOST_BYTES:,} is the most. Keep them in the database or in "
            "a file, and pass its key."
        )
    return Written(text, more.has_query)


def read_call(text: str) -> Call:
    """Return the call that `write_call` was given.

    Raises:
        UnknownNameError: it names what is not here.
        PayloadError: it is no call of ours.
    """
    values = payloads.loads(text, Arguments(), within=2)
    if not isinstance(values, dict) or values.get("version") != VERSION:
        raise PayloadError("This is no deferred call of a version that this release knows.")
    if values.keys() != _FIELDS.keys() or not all(isinstance(values[name], kind) for name, kind in _FIELDS.items()):
        raise PayloadError("A field of this deferred call is missing, one too many, or of another type.")
    if values["atomic"] and not is_known(values["using"]):
        raise UnknownNameError(f"There is no database {values['using']!r:.100} here.")
    function, kwargs = values["function"], values["kwargs"]
    if not callable(function) or not all(isinstance(name, str) for name in kwargs):
        raise PayloadError("What this deferred call names is no function, or its arguments have no names.")
    return Call(
        function=function,
        args=tuple(values["args"]),
        kwargs=kwargs,
        atomic=values["atomic"],
        using=values["using"],
    )


def sign(text: str) -> str:
    """Return the signature of a text."""
    return _mac(text, django_settings.SECRET_KEY)


def is_signed(text: str, signature: str) -> bool:
    """Tell whether a signature is that of a text, by SECRET_KEY or one of SECRET_KEY_FALLBACKS."""
    keys = (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS)
    return any(constant_time_compare(_mac(text, key), signature) for key in keys)


def _mac(text: str, key: Any) -> str:
    return hmac.digest(_derive(key), text.encode(), "sha256").hex()


@lru_cache(maxsize=16)
def _derive(key: Any) -> bytes:
    """Return the key of our signatures, as Django's salted_hmac() derives it, which does so for each."""
    return hashlib.sha256(force_bytes(_SALT) + force_bytes(key)).digest()
