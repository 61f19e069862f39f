"""What the code has, the documents name: settings, checks, errors, signals, outcomes, verbs, exported names."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import os
import re
import textwrap
from argparse import ArgumentParser
from pathlib import Path

import pytest
from django.dispatch import Signal

import soc_tasks
from soc_tasks import checks, conf, errors, http_targets, signals, values
from soc_tasks.management.commands.tasks import VERBS
from soc_tasks.views import responses

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

spec = importlib.util.spec_from_file_location("docs_check", DOCS / "check.py")
docs_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs_check)


def read(name):
    return (DOCS / "reference" / f"{name}.md").read_text()


def is_named(name, text):
    """Tell whether a text names something as code: `name`, `name(…)`, or as a signature in a block."""
    return re.search(rf"`{re.escape(name)}(?!\w)|^{re.escape(name)}\(", text, re.MULTILINE) is not None


def find_row(name, text):
    """Return the cells of the table row that begins with `name`."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    found = [row for row in rows if row[0].strip("| ") == f"`{name}`"]
    assert len(found) == 1, f"{name} has {len(found)} rows"
    return found[0]


def find_section(text, heading):
    """Return what stands under a heading, up to the next one."""
    match = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert match, f"there is no heading {heading}"
    return match[1]


@pytest.mark.parametrize("field", dataclasses.fields(conf.Settings), ids=lambda field: field.name.upper())
def test_every_setting_is_documented_with_its_default(field):
    row = find_row(field.name.upper(), find_section(read("settings"), "SOC_TASKS"))
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    assert row[2].strip("`").replace('"', "'") == repr(default)


def find_blocks(page, language):
    """Return the fenced blocks of a language, with the line that each begins at."""
    text = page.read_text()
    found = re.finditer(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start()) + 1, textwrap.dedent(match[2])) for match in found]


#: What a site may have used of djangae 2.0.0rc5.
OF_DJANGAE = """
    defer defer_iteration_with_finalize get_deferred_shard_index PermanentTaskFailure SingularTaskFailure
    _queue _eta _countdown _name _service _version _instance _transactional _using _small_task _wipe_related_caches _url
    _headers _retry_options TimeoutException DeferIterationMarker tasks_deferred_handler
    get_cloud_tasks_client ensure_required_queues_exist cloud_tasks_project cloud_tasks_location cloud_tasks_parent_path
    cloud_tasks_queue_path CLOUD_TASKS_QUEUES CLOUD_TASKS_LOCATION CLOUD_TASKS_PROJECT_ID TASKS_EMULATOR_HOST
    datastore_key_ranges sequential_int_key_ranges uuid_key_ranges firestore_scattered_int_key_ranges
    firestore_name_key_ranges firebase_uid_key_ranges SampledKeyRangeGenerator iterate_in_chunks
    task_only task_or_superuser_only csrf_exempt_if_task internal_only
    is_in_task is_in_cron task_name task_queue_name task_retry_count task_execution_count tasks_location
    TaskEnvironmentMiddleware task_environment_middleware TestCase TransactionTestCase process_task_queues
    flush_task_queues get_task_count assertNumTasksEquals max_task_retry_count TaskFailedBehaviour TaskFailedError
"""


@pytest.mark.parametrize("name", OF_DJANGAE.split())
def test_every_name_of_djangae_is_in_the_guide(name):
    text = find_section((DOCS / "howto" / "move-to-soc-tasks.md").read_text(), "From djangae's `djangae.tasks`")
    assert re.search(rf"\b{name}\b", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_piece_of_python_is_python(page):
    for line, block in find_blocks(page, "python"):
        compile(block, f"{page.name}:{line}", "exec", dont_inherit=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_setting_that_is_shown_is_good(page, settings):
    for line, block in find_blocks(page, "python"):
        names = [name for name in ("SOC_TASKS", "CLOUD_TASKS_QUEUES") if re.search(rf"^{name} = ", block, re.MULTILINE)]
        if not names:
            continue
        shown = {"os": os, "DATABASES": {"default": {}}}
        exec(compile(block.replace("[..., ", "["), f"{page.name}:{line}", "exec"), shown)
        if "SOC_TASKS" in names:
            assert conf.find_problems(shown["SOC_TASKS"]) == [], line
        if "CLOUD_TASKS_QUEUES" in names:
            settings.CLOUD_TASKS_QUEUES = shown["CLOUD_TASKS_QUEUES"]
            assert conf.get_queues()


@pytest.mark.parametrize("option", ["name", *conf._QUEUE_NUMBERS, *conf._QUEUE_DICTS, "http_target"])
def test_every_option_of_a_queue_is_documented(option):
    find_row(option, find_section(read("settings"), "CLOUD_TASKS_QUEUES"))


@pytest.mark.parametrize("part", [*http_targets._PARTS, *http_targets._URI])
def test_every_part_of_an_http_target_is_documented(part):
    assert is_named(part, find_section(read("queues"), "HTTP targets"))


def test_every_check_is_documented_and_its_hint_leads_there():
    source = inspect.getsource(checks)
    known = set(re.findall(r"\bid=\"(soc_tasks\.[EWI]\d{3})\"", source))
    page = DOCS / "reference" / "checks.md"
    assert known == set(re.findall(r"^## (\S+)$", page.read_text(), re.MULTILINE))
    assert known == set(re.findall(r"^\| \[(\S+)\]", page.read_text(), re.MULTILINE))
    anchors = re.findall(r"DOCS\.format\(\"(\S+?)\"\)", source)
    assert set(anchors) == {name.replace(".", "").lower() for name in known}
    assert set(anchors) <= docs_check.find_anchors(page)
    assert "docs/reference/checks.md#" in checks.DOCS


@pytest.mark.parametrize(
    "name",
    [name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__],
)
def test_every_error_is_documented(name):
    assert is_named(name, read("errors"))
    assert re.search(rf"^[│├└─ ]*{name}\b", read("errors"), re.MULTILINE), "the tree lacks it"


@pytest.mark.parametrize("name", [name for name, value in vars(signals).items() if isinstance(value, Signal)])
def test_every_signal_is_documented(name):
    find_row(name, read("signals"))


@pytest.mark.parametrize(
    "outcome", sorted({(o.name, o.status) for o in vars(responses).values() if isinstance(o, responses.Outcome)})
)
def test_every_outcome_is_documented(outcome):
    name, status = outcome
    assert f" | `{name}` | {status} | " in find_section(read("http-contract"), "Outcomes")


@pytest.mark.parametrize("header", [value for name, value in vars(values).items() if name.endswith("_HEADER")])
def test_every_header_is_documented(header):
    assert is_named(header, read("http-contract"))


@pytest.mark.parametrize("name", soc_tasks.__all__)
def test_every_exported_name_is_documented(name):
    is_error = name in soc_tasks._MODULES["soc_tasks.errors"]
    assert is_named(name, read("errors" if is_error else "functions"))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_is_documented(verb):
    section = find_section(read("commands"), verb)
    parser = ArgumentParser(add_help=False)
    importlib.import_module(VERBS[verb]).add_arguments(parser)
    for action in parser._actions:
        for name in action.option_strings or [str(action.metavar or action.dest).upper()]:
            assert re.search(rf"{re.escape(name)}(?![\w-])", section), f"{verb} lacks {name}"


def test_no_verb_is_documented_that_is_not_there():
    assert set(re.findall(r"^## (\S+)$", read("commands"), re.MULTILINE)) == set(VERBS)


def test_readme_is_short_and_names_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert {"make demo", "make test"} <= {line.split("#")[0].strip() for line in lines}


def test_every_page_is_reached_from_the_index():
    index = DOCS / "index.md"
    linked = {(DOCS / target).resolve() for target in re.findall(r"\]\(([^)#]+\.md)", index.read_text())}
    assert {page for page in PAGES[1:] if page != index} <= linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_samples_are_python_and_import_what_is_there(page):
    for block in re.findall(r"^( *)```python\n(.*?)^\1```", page.read_text(), re.MULTILINE | re.DOTALL):
        tree = ast.parse(inspect.cleandoc("\n" + block[1]))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "soc_tasks":
                module = importlib.import_module(node.module)
                missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert not missing, f"{node.module} has no {missing}"
