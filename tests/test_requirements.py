"""Skips for what is missing are failures where everything is demanded, and only those."""

from __future__ import annotations

from pathlib import Path

import pytest

SOURCE = """
import pytest

def test_missing():
    pytest.skip("missing: a server")

def test_other_reason():
    pytest.skip("only on the moon")

@pytest.mark.requires("unheard-of")
def test_unknown_requirement():
    raise AssertionError("never reached")

@pytest.mark.requires("sigkill")
def test_met():
    pass
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run pytest with this project's hooks and nothing else, in a process of its own."""
    pytester.makeconftest(Path(__file__).with_name("requirements.py").read_text())
    pytester.makeini("[pytest]\nmarkers = requires(*names): needs these\n")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)

    def run(require_all, **modules):
        pytester.makepyfile(**modules)
        monkeypatch.setenv("SOC_TASKS_REQUIRE_ALL", require_all)
        return pytester.runpytest_subprocess()

    return run


def test_skips_stay_skips_by_default(run):
    run("0", test_it=SOURCE).assert_outcomes(skipped=2, passed=1, errors=1)


def test_missing_things_fail_where_everything_is_demanded(run):
    result = run("1", test_it=SOURCE)
    result.assert_outcomes(skipped=1, passed=1, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*missing: a server (SOC_TASKS_REQUIRE_ALL=1 turns this skip into a failure)*"])


def test_unknown_requirement_says_what_is_known(run):
    run("0", test_it=SOURCE).stdout.fnmatch_lines(["*requires('unheard-of')*aiosmtpd*"])


def test_module_level_skip_fails_too(run):
    module = "import pytest\npytest.skip('missing: a module', allow_module_level=True)\n"
    assert run("0", test_module=module).ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert run("1", test_module=module).ret == pytest.ExitCode.INTERRUPTED
