"""`tasks doctor`: check that this site is fit to run its tasks, and print what mends each fault."""

from __future__ import annotations

from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from soc_tasks.management.verbs.printing import add_json_option, write_json

help = "Check settings, tables, queues, access, clocks and workers; print what mends each fault; 1 if one is grave."

_STYLES: Final = {"ok": "SUCCESS", "warn": "WARNING", "fail": "ERROR"}


def add_arguments(parser: CommandParser) -> None:
    """Add how it is printed."""
    add_json_option(parser, "print one JSON object: ok, and the findings")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Examine, and print each finding as it comes.

    Raises:
        CommandError: something failed.
    """
    from soc_tasks.management.doctor import examine
    from soc_tasks.management.doctor.findings import FAIL, WARN

    findings = []
    for finding in examine():
        findings.append(finding)
        if options["json"]:
            continue
        style = getattr(command.style, _STYLES[finding.level])
        mark = f" ({finding.id})" if finding.id else ""
        command.stdout.write(f"{style(f'{finding.level:<4}')}  {finding.family:<8}  {finding.message}{mark}")
        if finding.mend:
            command.stdout.write(f"{'':16}-> {finding.mend}")
    failed = sum(finding.level == FAIL for finding in findings)
    warned = sum(finding.level == WARN for finding in findings)
    if options["json"]:
        write_json(
            command,
            {
                "ok": not failed,
                "failed": failed,
                "warned": warned,
                "findings": [finding.as_dict() for finding in findings],
            },
        )
    else:
        command.stdout.write(f"{len(findings)} findings: {failed} failed, {warned} to look at.")
    if failed:
        raise CommandError(f"{failed} of {len(findings)} findings failed; each says what mends it.")
