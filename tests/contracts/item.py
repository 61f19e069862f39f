"""A task in the model of a queue."""

from __future__ import annotations

import dataclasses

from soc_tasks.values import Task


@dataclasses.dataclass
class Item:
    """A task that lives."""

    task: Task
    number: int
    due: int
    #: When somebody asked for it to run at once, if that was asked.
    asked: int | None = None
    state: str = "waiting"
    owner: int | None = None
    attempts: int = 0
    responses: int = 0
    first_attempt: int | None = None
    status: int | None = None
    busy: int = 0
    crashes: int = 0
    alone: bool = False
    progress: str = ""
    unknown: int | None = None

    @property
    def key(self):
        return (self.task.queue, self.task.name)

    @property
    def since(self):
        """When it is due, or was asked for."""
        return self.due if self.asked is None else self.asked

    @property
    def order(self):
        """What is asked for comes first, the latest wish before the others; then by time; then as it was added."""
        return (self.due if self.asked is None else -self.asked, self.number)

    def give_back(self):
        """Back as it was; one that ran alone is still under suspicion."""
        self.state, self.owner, self.alone = "suspect" if self.alone else "waiting", None, False
