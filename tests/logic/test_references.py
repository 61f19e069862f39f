"""Which names are followed: those of the site, of Django and of DEFERRABLE, and what they mean."""

from __future__ import annotations

import builtins
import functools
import operator
import os
import re
import sys
import types

import pytest
from django.core.management import call_command
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from soc_tasks import PayloadError, defer, task
from soc_tasks.logic import references
from soc_tasks.logic.payloads import UnknownNameError
from soc_tasks.logic.references import BrokenModuleError, find, name_of
from tests.specimen import functions
from tests.specimen.functions import Caller, Child, Colour, Maker, Point, note

HOME = "tests.specimen.functions"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (note, f"{HOME}:note"),
        (functions.decorated, f"{HOME}:decorated"),
        (functions.cached, f"{HOME}:cached"),
        (functions.injected, f"{HOME}:injected"),
        (Maker, f"{HOME}:Maker"),
        (Maker.Inner, f"{HOME}:Maker.Inner"),
        (Maker.static, f"{HOME}:Maker.static"),
        (Maker.Inner.static, f"{HOME}:Maker.Inner.static"),
        (Point.note, f"{HOME}:Point.note"),
        # What is inherited is found where it was written.
        (Child.static, f"{HOME}:Maker.static"),
        (Colour, f"{HOME}:Colour"),
        # Under another name it is the same function.
        (functions.renamed, f"{HOME}:note"),
        (call_command, "django.core.management:call_command"),
        (timezone.now, "django.utils.timezone:now"),
        (defer, "soc_tasks.logic.deferred:defer"),
    ],
)
def test_what_stands_in_a_module_is_found_again(value, name):
    assert name_of(value, "the function") == name
    assert find(name) is value


def closure():
    seen = []
    return lambda: seen


def local():
    def inner():
        """Nobody finds it."""

    return inner


def local_class():
    class Inner:
        """Nobody finds it."""

    return Inner


def shadowed():
    """The one that is gone when the module is loaded."""


old_shadowed = shadowed


def shadowed():
    """The one that stays."""


def pretend(**names):
    made = types.FunctionType(note.__code__, {}, "made")
    for name, value in names.items():
        setattr(made, name, value)
    return made


REFUSED = [
    (lambda: None, "lambda"),
    (functions.a_lambda, "lambda"),
    (closure(), "lambda"),
    (local(), "inside a function"),
    (local_class(), "inside a function"),
    (old_shadowed, "leads to something else"),
    (functions.decorated.__wrapped__, "leads to something else"),
    (functions.cached.__wrapped__, "leads to something else"),
    (pretend(__module__="__main__", __qualname__="run"), "script that runs"),
    (pretend(__module__=HOME, __qualname__="gone"), "leads to something else"),
    (pretend(__module__=HOME, __qualname__="note"), "leads to something else"),
    (pretend(__module__="tests.not_loaded", __qualname__="note"), "leads to something else"),
    (pretend(__module__=None, __qualname__="note"), "no name"),
    (pretend(__module__=HOME, __qualname__="a b"), "never followed"),
    (os.system, "Python's own"),
    (functions.os_system, "Python's own"),
    (os.path.join, "Python's own"),
    (eval, "Python's own"),
    (builtins.exec, "Python's own"),
    (print, "Python's own"),
    (int, "Python's own"),
    (operator.attrgetter, "Python's own"),
    (functools.reduce, "Python's own"),
    (functools.partial(os.system), "Python's own"),
    (pytest.raises, "DEFERRABLE"),
    (given, "add 'hypothesis' to SOC_TASKS['DEFERRABLE']"),
    ("".join, "no name"),
    ([].append, "no name"),
    (Point.__init__, "never followed"),
    (Caller.__call__, "never followed"),
    (vars(functions)["__private"], "never followed"),
    (Point(1).__eq__, "begins with '__'"),
    (Caller().__call__, "begins with '__'"),
    (functools.partialmethod(note), "is of type"),
    (Caller(), "is of type"),
]


@pytest.mark.parametrize(("value", "why"), REFUSED, ids=[str(index) for index in range(len(REFUSED))])
def test_what_cannot_or_may_not_be_found_is_refused_when_it_is_deferred(task_queues, value, why):
    for path, arguments in (("the function", (value,)), ("args[0]", (note, value))):
        if path == "the function" and not callable(value):
            continue
        with pytest.raises(PayloadError, match=re.escape(path)) as caught:
            defer(*arguments)
        assert why in str(caught.value)
    task_queues.assertNumTasksEquals(0)


NEVER = [
    "",
    ":",
    "note",
    "os.system",
    "os:system",
    "os.path:join",
    "posix:system",
    "subprocess:Popen",
    "subprocess:run",
    "builtins:eval",
    "builtins.eval",
    "importlib:import_module",
    "antigravity:fly",
    "pickle:loads",
    "__main__:run",
    f"{HOME}",
    f"{HOME}:",
    f":{HOME}",
    f"{HOME}:note:note",
    f"{HOME}:note.__globals__",
    f"{HOME}:note.__globals__.os",
    f"{HOME}:__builtins__",
    f"{HOME}:__private",
    f"{HOME}:Maker.__init__",
    f"{HOME}:Maker.__subclasses__",
    f"{HOME}:Maker.__class__.__base__",
    f"{HOME}.__globals__:x",
    f"{HOME} :note",
    f"{HOME}: note",
    f"{HOME}:note\n",
    f"{HOME}:note()",
    f"{HOME}:",
    f".{HOME}:note",
    f"{HOME}.:note",
    "a..b:c",
    "../x:y",
    "tests/specimen/functions:note",
]
#: A release that has the app may know them.
NOT_HERE = [
    f"{HOME}:gone",
    f"{HOME}:os",
    f"{HOME}:os.system",
    f"{HOME}:os_system",
    f"{HOME}:models.Model",
    f"{HOME}:functools.reduce",
    f"{HOME}:dataclasses",
    f"{HOME}:renamed",
    f"{HOME}:calls",
    f"{HOME}:calls.append",
    f"{HOME}:note.cache_clear",
    f"{HOME}:Maker.gone",
    f"{HOME}:Maker.Inner.gone",
    f"{HOME}:Child.static",
    f"{HOME}:Colour.RED",
    f"{HOME}:Enum",
    f"{HOME}:a_lambda",
    "tests.specimen.gone:note",
    "tests.specimen.functions.gone:note",
    "tests.gone.more:note",
    "django.utils.gone:now",
    "elsewhere:note",
    "elsewhere.functions:note",
    "hypothesis:given",
    "tests_of_another:note",
    "djangoo.utils:now",
    "this_is_not_installed:note",
]


@pytest.mark.parametrize("name", NEVER)
def test_what_is_never_followed_is_not_even_imported(name):
    before = set(sys.modules)
    with pytest.raises(ValueError, match=r"no name|may not be followed") as caught:
        find(name)
    assert not isinstance(caught.value, PayloadError)
    assert set(sys.modules) == before


@pytest.mark.parametrize("name", NOT_HERE)
def test_what_is_not_here_may_be_known_to_another_release(name):
    with pytest.raises(UnknownNameError):
        find(name)


@pytest.mark.parametrize("name", ["antigravity:fly", "this:d", "elsewhere:x", "wsgiref.simple_server:main"])
def test_nothing_outside_of_the_packages_is_imported(name, tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = set(sys.modules)
    with pytest.raises((ValueError, UnknownNameError)):
        find(name)
    assert set(sys.modules) == loaded


@settings(deadline=None)
@given(st.lists(st.sampled_from(["os", "system", "note", "functions", "__globals__", "Maker", ":", ".", "x", ""])))
def test_any_mixture_of_names_finds_what_calls_itself_so_or_nothing(parts):
    name = f"{HOME}:" + "".join(parts)
    try:
        found = find(name)
    except (ValueError, UnknownNameError):
        return
    assert f"{found.__module__}:{found.__qualname__}" == name


def test_packages_of_the_setting_are_followed(settings):
    settings.SOC_TASKS = {"DEFERRABLE": ("hypothesis", "os", "builtins", "subprocess")}
    assert find(name_of(given, "x")) is given
    assert name_of(note, "x") == f"{HOME}:note"
    for value in (os.system, eval, os.path.join):
        with pytest.raises(PayloadError, match="never followed"):
            name_of(value, "x")
    for name in ("os:system", "builtins:eval", "subprocess:run"):
        with pytest.raises(ValueError, match="may not be followed"):
            find(name)
    with pytest.raises(UnknownNameError):
        find("hypothesis_more:given")


def test_the_setting_is_read_again_when_it_changes(settings):
    for deferrable in ((), ("hypothesis",), ()):
        settings.SOC_TASKS = {"DEFERRABLE": deferrable}
        assert references.may_be_followed("hypothesis.core") is bool(deferrable)


@pytest.mark.parametrize(("urlconf", "good"), [("tests.urls", True), ("site_x.urls", False), ("urls", False)])
def test_the_package_of_the_url_conf_is_followed(settings, urlconf, good):
    settings.ROOT_URLCONF = urlconf
    assert references.may_be_followed("tests.views.anything") is good
    assert references.may_be_followed(urlconf)
    assert not references.may_be_followed("urlsmore")


def test_an_app_that_is_not_installed_is_not_followed(settings, monkeypatch):
    monkeypatch.setattr(references.apps, "get_app_configs", list)
    settings.ROOT_URLCONF = "examples.urls"
    with pytest.raises(PayloadError, match="no package of INSTALLED_APPS"):
        name_of(note, "x")
    with pytest.raises(UnknownNameError, match="no package of INSTALLED_APPS here"):
        find(f"{HOME}:note")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import not_installed_at_all", BrokenModuleError),
        ("import tests.specimen.not_there", BrokenModuleError),
        ("from tests.specimen.functions import not_there", BrokenModuleError),
        ("import os; os.environ['NOT_SET']", BrokenModuleError),
        ("raise ValueError('not today')", BrokenModuleError),
        ("raise TypeError", BrokenModuleError),
        ("raise RecursionError", BrokenModuleError),
        ("def broken(:", BrokenModuleError),
        ("raise ModuleNotFoundError", BrokenModuleError),
        ("", UnknownNameError),
    ],
)
def test_a_module_that_cannot_be_imported_is_none_that_is_not_there(tmp_path, monkeypatch, settings, source, error):
    settings.SOC_TASKS = {"DEFERRABLE": ("made_for_this",)}
    (tmp_path / "made_for_this.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "made_for_this", raising=False)
    try:
        with pytest.raises(error):
            find("made_for_this:run")
    finally:
        sys.modules.pop("made_for_this", None)


def test_what_a_module_would_make_up_is_not_found(tmp_path, monkeypatch, settings):
    settings.SOC_TASKS = {"DEFERRABLE": ("made_for_this",)}
    (tmp_path / "made_for_this.py").write_text("def __getattr__(name):\n    raise AssertionError(name)\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(UnknownNameError):
            find("made_for_this:run")
    finally:
        sys.modules.pop("made_for_this", None)


def test_task_views_are_started_and_not_deferred(task_queues):
    @task
    def view(request):
        """Do nothing."""

    for function in (view, functools.partial(view, 1)):
        with pytest.raises(TypeError, match="startTask"):
            defer(function)
    task_queues.assertNumTasksEquals(0)
