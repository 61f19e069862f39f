"""Check that every link and anchor of the documents resolves: `make docs`.

Reads README, CHANGELOG, CONTRIBUTING and docs/. Links to other sites are not followed (the check needs no network);
a link to a file must hit a file of the repository, an anchor a heading or an `<a id="…">` of the page that it names.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent

FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1`*~*\s*?$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
ANCHOR = re.compile(r"<[a-z]+\s[^>]*\b(?:id|name)=[\"']([^\"']+)[\"']")
INLINE_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'][^)]*[\"'])?\s*\)")
REFERENCE = re.compile(r"^\s{0,3}\[([^\]^]+)\]:\s*<?(\S+?)>?(?:\s+[\"'].*)?$", re.MULTILINE)
REFERENCE_LINK = re.compile(r"\[[^\[\]]+\]\[([^\[\]]+)\]")
ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:|^//", re.IGNORECASE)


def find_pages() -> list[Path]:
    """Return the documents."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def make_slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # a link's text
    text = re.sub(r"<[^>]+>", "", text)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


@cache
def find_anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page; a heading met again gets a number."""
    text = FENCE.sub("", page.read_text())
    anchors = set(ANCHOR.findall(text))
    seen: dict[str, int] = {}
    for heading in HEADING.findall(text):
        slug = make_slug(heading)
        number = seen.get(slug, 0)
        seen[slug] = number + 1
        anchors.add(f"{slug}-{number}" if number else slug)
    return frozenset(anchors)


def check_link(page: Path, target: str) -> str | None:
    """Return what is wrong with a link of a page, or None."""
    if ELSEWHERE.match(target):
        return None
    path, _, anchor = unquote(target).partition("#")
    found = page
    if path:
        found = (ROOT / path.lstrip("/") if path.startswith("/") else page.parent / path).resolve()
        if not found.is_relative_to(ROOT) or not found.exists():
            return f"there is no {path}"
    if anchor and found.suffix == ".md" and anchor not in find_anchors(found):
        return f"{found.relative_to(ROOT)} has no anchor #{anchor}; it has {', '.join(sorted(find_anchors(found)))}"
    return None


def check_page(page: Path) -> list[str]:
    """Return what is wrong on a page, a line each."""
    text = INLINE_CODE.sub("", FENCE.sub("", page.read_text()))
    references = {name.lower(): target for name, target in REFERENCE.findall(text)}
    problems = [
        f"[{target}]: {problem}"
        for target in [*INLINE_LINK.findall(text), *references.values()]
        if (problem := check_link(page, target))
    ]
    problems += [
        f"[{name}]: this reference is not defined on the page"
        for name in REFERENCE_LINK.findall(text)
        if name.lower() not in references
    ]
    return [f"{page.relative_to(ROOT)}: {problem}" for problem in problems]


def main() -> int:
    """Print what is wrong; return the exit status."""
    pages = find_pages()
    problems = [problem for page in pages for problem in check_page(page)]
    for problem in problems:
        print(problem)
    print(f"docs: {len(pages)} pages, {len(problems)} broken links" if problems else f"docs: {len(pages)} pages, ok")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
