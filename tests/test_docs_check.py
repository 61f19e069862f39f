"""The check of the documents finds what it is for."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("docs_check", Path(__file__).parents[1] / "docs" / "check.py")
docs_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs_check)


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Check a README beside docs/other.md with two headings."""
    monkeypatch.setattr(docs_check, "ROOT", tmp_path)
    docs_check.find_anchors.cache_clear()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "other.md").write_text(
        "# `startTask` and its friends\n## Twice\n## Twice\n<a id='here'></a>\n```\n# no heading\n```\n"
    )

    def check(text):
        page = tmp_path / "README.md"
        page.write_text(text)
        return docs_check.check_page(page)

    return check


@pytest.mark.parametrize(
    "text",
    [
        "[a](docs/other.md)",
        "[a](docs/other.md#starttask-and-its-friends)",
        "[a](docs/other.md#twice) [b](docs/other.md#twice-1) [c](docs/other.md#here)",
        "# Here\n[a](#here)",
        '[a](https://example.org/nowhere "title") [b](mailto:a@example.org)',
        "`[a](nowhere.md)`",
        "```\n[a](nowhere.md)\n```",
        "[a][b]\n\n[b]: docs/other.md#twice",
    ],
)
def test_good_links_pass(check, text):
    assert check(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "[a](nowhere.md)",
        "![a](docs/picture.png)",
        "[a](docs/other.md#no-heading)",
        "[a](docs/other.md#twice-2)",
        "[a](../outside.md)",
        "[a](#here)",
        "[a][b]",
        "[a][b]\n\n[b]: nowhere.md",
    ],
)
def test_broken_links_are_told(check, text):
    (problem,) = check(text)
    assert problem.startswith("README.md: [")
