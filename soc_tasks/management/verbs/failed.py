"""`tasks failed`: dead letters, and what to do about them."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from soc_tasks.logic.letters import LetterNotFoundError, discard_letters, find_letters, name_work, retry_letter
from soc_tasks.management.verbs.printing import add_json_option, write_json_lines, write_result
from soc_tasks.meta import read_meta
from soc_tasks.state import get_state
from soc_tasks.state.base import DeadLetter

help = "List dead letters; run them again or discard them."


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("ids", nargs="*", type=int, help="dead letters by id; without any: all that are listed")
    parser.add_argument("--queue", help="only of this queue")
    parser.add_argument(
        "--matching", metavar="TEXT", help="only with this in their path, function or error, in whatever case"
    )
    parser.add_argument("--limit", type=int, default=100, help="the newest so many (default: 100)")
    parser.add_argument("--full", action="store_true", help="show tracebacks as well")
    add_json_option(parser)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--retry", action="store_true", help="queue them anew")
    action.add_argument("--discard", action="store_true", help="drop them")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """List, retry or discard.

    Raises:
        CommandError: an id is unknown, or there is nothing to look for.
    """
    if options["matching"] == "":
        raise CommandError("--matching needs some text; leave it out to work on all.")
    letters = _select(options)
    if options["retry"]:
        for letter in letters:
            result = _retry(letter)
            write_result(command, options, f"{letter.id}: {result}", id=letter.id, result=result)
    elif options["discard"]:
        count = discard_letters(letters)
        write_result(command, options, f"{count} dead letters discarded", discarded=count)
    elif options["json"]:
        write_json_lines(command, (_describe(letter, options["full"]) for letter in letters))
    else:
        for letter in letters:
            _print(command, letter, options["full"])
        if not letters:
            command.stdout.write("no dead letters")


def _select(options: dict[str, Any]) -> list[DeadLetter]:
    state = get_state()
    if not options["ids"]:
        return find_letters(queue=options["queue"], matching=options["matching"], limit=options["limit"])
    found = []
    for letter_id in options["ids"]:
        letter = state.get_dead_letter(letter_id)
        if letter is None:
            raise CommandError(f"There is no dead letter {letter_id}; `tasks failed` lists them.")
        found.append(letter)
    return found


def _retry(letter: DeadLetter) -> str:
    try:
        return retry_letter(letter.id or 0)
    except LetterNotFoundError:
        # The letters of one iteration go together with the first that resumes it.
        return "gone already"


def _print(command: BaseCommand, letter: DeadLetter, with_traceback: bool) -> None:
    created = letter.created.isoformat(timespec="seconds") if letter.created else ""
    command.stdout.write(
        f"{letter.id}  {created}  {letter.task.queue}  {name_work(letter)}  attempts={letter.attempts}  "
        f"{letter.error_type}: {letter.error}"
    )
    if with_traceback and letter.traceback:
        command.stdout.write(letter.traceback)


def _describe(letter: DeadLetter, with_traceback: bool) -> dict[str, Any]:
    meta = read_meta(letter.task)
    values = {
        "id": letter.id,
        "created": letter.created,
        "queue": letter.task.queue,
        "name": letter.task.name,
        "path": letter.task.path,
        "work": name_work(letter),
        "attempts": letter.attempts,
        "error_type": letter.error_type,
        "error": letter.error,
        "iteration": None if meta is None or meta.slice is None else meta.slice.iteration,
    }
    return values | ({"traceback": letter.traceback} if with_traceback else {})
