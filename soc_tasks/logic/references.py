"""Functions and classes by name: which may be named, and finding what a name means.

Followed are names in the packages of INSTALLED_APPS, in that of ROOT_URLCONF, in Django, and in those that
`DEFERRABLE` adds; never in the standard library. A name leads through classes only: neither through modules, which
would lead out of these packages, nor through instances. What is found must call itself by that name.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.signals import setting_changed

from soc_tasks.conf import get_settings
from soc_tasks.errors import PayloadError
from soc_tasks.logic.payloads import UnknownNameError


class BrokenModuleError(Exception):
    """A module is there and cannot be imported, which may pass: a setting is missing, or a service is away."""


def name_of(value: Any, path: str) -> str:
    """Return the name by which `find` finds a function or a class again: "package.module:Class.function".

    Args:
        value: the function or class.
        path: how errors name it.

    Raises:
        PayloadError: it cannot be found by a name, or may not.
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        raise PayloadError(f"{path} is {value!r:.200}, which has no name to find it by.")
    if "<lambda>" in name:
        raise PayloadError(f"{path} is a lambda, which cannot be found by a name; define a function in a module.")
    if "<locals>" in name:
        raise PayloadError(
            f"{path} is {name}, which is defined inside a function and cannot be found from elsewhere; define it in a "
            "module, and pass what it needs as arguments."
        )
    if not may_be_followed(module):
        raise PayloadError(_refusal(path, module, name))
    if not _is_plain(module, name):
        raise PayloadError(
            f"{path} is {module}.{name}, and names with a part that begins with '__', or is no identifier, are never "
            "followed; call it in a function of your own."
        )
    found = _find_in(sys.modules.get(module), name)
    if found is not value:
        raise PayloadError(
            f"{path} is {module}.{name}, and that name leads to something else, {found!r:.200}: only what stands "
            "under its own name in its module can be found again."
        )
    return f"{module}:{name}"


def _refusal(path: str, module: str, name: str) -> str:
    if module == "__main__":
        return f"{path} is {name} of the script that runs ({module}), which the worker has not; put it into a module."
    if _is_pythons(module):
        return (
            f"{path} is {module}.{name} of Python's own library, which is never followed; write a function of your own "
            "that calls it."
        )
    return (
        f"{path} is {module}.{name}, which is in no package of INSTALLED_APPS or ROOT_URLCONF. If it is to be "
        f"deferred, add {module.partition('.')[0]!r} to SOC_TASKS['DEFERRABLE']."
    )


def find(name: str) -> Any:
    """Return the function or class of a name.

    Raises:
        UnknownNameError: there is none of that name here.
        BrokenModuleError: its module cannot be imported.
        ValueError: it is no such name, or may never be followed.
    """
    module, _, inner = name.partition(":")
    if not _is_plain(module, inner):
        raise ValueError(f"{name!r:.200} is no name of a function or a class")
    if _is_pythons(module):
        raise ValueError(f"{name!r:.200} may not be followed")
    if not may_be_followed(module):
        # Where the call was made it may: the next release has an app more, or this one has an app more than the last.
        raise UnknownNameError(f"{module} is in no package of INSTALLED_APPS here, nor in SOC_TASKS['DEFERRABLE'].")
    try:
        home = import_module(module)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not (module == missing or module.startswith(f"{missing}.")):
            # The module is there, and fails, or imports one that is not.
            raise BrokenModuleError(f"{module} cannot be imported: {error!r}") from error
        raise UnknownNameError(f"There is no module {module} here, which {inner} is in.") from error
    found = _find_in(home, inner)
    if found is None:
        if inner in vars(home):
            raise UnknownNameError(
                f"{module}.{inner} is another name of something else here; define a function of that name that calls "
                "it."
            )
        raise UnknownNameError(f"There is no {inner} in the module {module} here.")
    return found


def _find_in(home: Any, name: str) -> Any:
    """Return what a name means in a module, or None."""
    found: Any = home
    *classes, last = name.split(".")
    for part in classes:
        found = vars(found).get(part) if found is not None else None
        if not isinstance(found, type):
            return None
    # Of a module what stands in it, and nothing that it would make up; of a class what it inherits, too.
    found = getattr(found, last, None) if classes else vars(home).get(last) if home is not None else None
    # Not what was merely imported there, under this name or another.
    own = getattr(found, "__module__", None) == getattr(home, "__name__", None)
    return found if own and getattr(found, "__qualname__", None) == name else None


@lru_cache(maxsize=1024)
def _is_plain(module: str, name: str) -> bool:
    parts = [*module.split("."), *name.split(".")]
    return all(part.isidentifier() and not part.startswith("__") for part in parts)


def _is_pythons(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


@lru_cache(maxsize=1024)
def may_be_followed(module: str) -> bool:
    """Tell whether names in a module are followed."""
    return not _is_pythons(module) and any(
        module == package or module.startswith(f"{package}.") for package in _packages()
    )


@lru_cache(maxsize=1)
def _packages() -> frozenset[str]:
    urlconf = django_settings.ROOT_URLCONF
    own = {urlconf.rpartition(".")[0] or urlconf} if isinstance(urlconf, str) else set()
    return frozenset({"django", *own, *get_settings().deferrable, *(config.name for config in apps.get_app_configs())})


def _forget(*, setting: str, **_: Any) -> None:
    if setting in ("INSTALLED_APPS", "ROOT_URLCONF", "SOC_TASKS"):
        _packages.cache_clear()
        may_be_followed.cache_clear()


setting_changed.connect(_forget, dispatch_uid="soc_tasks.references")
