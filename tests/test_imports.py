"""What imports what: the package is light, the rooms import one way, and no code travels."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import soc_tasks

ROOT = Path(soc_tasks.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if "migrations" not in path.parts)

#: What a room may import beside itself. `ground` lies under all.
ROOMS = {
    "ground": set(),
    "engine": {"ground"},
    "state": {"ground", "engine", "models"},
    "backends": {"ground", "engine", "state"},
    "logic": {"ground", "engine", "backends", "state"},
    "views": {"ground", "engine", "backends", "state", "logic"},
    "models": {"ground"},
}
GROUND = {
    "values",
    "errors",
    "conf",
    "fields",
    "frozen",
    "http_targets",
    "logs",
    "meta",
    "signals",
    "signatures",
    "start_ids",
}
#: Beside the rooms, for those who run or test a site.
OUTSIDE = {
    "admin",
    "apps",
    "checks",
    "management",
    "probe",
    "pytest_plugin",
    "sandbox",
    "templatetags",
    "testing",
    "urls",
}
CODE_IN_DATA = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle"}
CODE_OF_DATA = {"eval", "exec", "compile", "__import__", "__builtins__", "__globals__", "CodeType"}
LAZY = {"google", "grpc"}
#: The only ones that may import google's libraries, and inside functions.
GOOGLE = {"views/oidc"}
GOOGLE_PREFIXES = ("backends/cloud_tasks/", "engine/server", "logic/datastore_", "state/datastore")


def name_of(path):
    return path.relative_to(ROOT).with_suffix("").as_posix()


def room_of(module):
    """The room of a dotted name, or None for what is not ours."""
    first, _, rest = module.partition(".")
    if first != "soc_tasks":
        return None
    head = rest.partition(".")[0]
    return "ground" if head in GROUND else head or "package"


def imports(tree):
    """Every import, wherever it stands: the module, and whether it is inside a function."""
    inside = {id(node) for outer in ast.walk(tree) if isinstance(outer, ast.FunctionDef) for node in ast.walk(outer)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) in inside


def parse(path):
    return ast.parse(path.read_text(), filename=str(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_rooms_import_one_way(path):
    here = room_of("soc_tasks." + name_of(path).replace("/", ".").removesuffix(".__init__"))
    if here in OUTSIDE or name_of(path) == "__init__":
        return
    there = {room_of(module) for module, _ in imports(parse(path))} - {None, here}
    assert there <= ROOMS[here]


def test_every_module_is_in_a_room():
    tops = {name_of(path).partition("/")[0] for path in MODULES} - {"__init__"}
    assert tops <= set(ROOMS) | GROUND | OUTSIDE


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_format_that_carries_code_is_imported(path):
    assert not {module.partition(".")[0] for module, _ in imports(parse(path))} & CODE_IN_DATA


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=name_of)
def test_no_code_is_made_of_data(path):
    """Neither called nor handed on, under their own name, that of an attribute, or as a text to look them up by."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Name):
            assert node.id not in CODE_OF_DATA
        elif isinstance(node, ast.Attribute):
            # re.compile() makes no code.
            assert node.attr not in CODE_OF_DATA - {"compile"}
        elif isinstance(node, ast.Constant):
            assert not isinstance(node.value, str) or node.value not in CODE_OF_DATA | CODE_IN_DATA


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_google_is_imported_late_and_in_few_places(path):
    for module, inside in imports(parse(path)):
        if module.partition(".")[0] in LAZY:
            assert inside
            assert name_of(path) in GOOGLE or name_of(path).startswith(GOOGLE_PREFIXES)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_exception_is_dropped_without_a_word(path):
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, "a bare except catches what must end the process"
            assert not all(isinstance(statement, ast.Pass) for statement in node.body)


def loaded_by(code):
    """The modules that a fresh interpreter has loaded after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT.parent,
    )
    return set(done.stdout.split())


def test_importing_the_package_is_light():
    loaded = loaded_by("import soc_tasks")
    assert not loaded & {"google.cloud", "grpc", "django.db.models", "django.db", "django.http", "django", "simplejson"}
    assert {name for name in loaded if name.startswith("soc_tasks")} == {"soc_tasks"}


@pytest.mark.parametrize("name", ["startTask", "task", "iterative_task", "Iteration", "from_queue", "FatalTaskError"])
def test_no_name_of_the_package_brings_google(name):
    loaded = loaded_by(f"from soc_tasks import {name}")
    assert not loaded & {"google.cloud", "google.cloud.tasks_v2", "google.auth", "grpc"}
    assert not loaded & {"pickle5", "dill", "shelve"}


def test_errors_need_no_settings():
    loaded_by("from soc_tasks import *")
