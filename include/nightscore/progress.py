"""Telling whoever watches what a run is doing: a terminal, a log, nobody."""

import logging
from collections.abc import Callable
from typing import Protocol

from nightscore.objects import Json

log = logging.getLogger("nightscore")

Tell = Callable[[str], None]  # is given a sentence about what is being done


class Progress(Protocol):
    """What the pipeline reports while it works."""

    def stage_began(self, stage: str) -> None:
        """Report that a stage began."""

    def stage_ended(self, stage: str, record: Json) -> None:
        """Report a stage's record."""

    def waiting(self, seen: str) -> None:
        """Report what is seen of the data that is waited for."""

    def note(self, sentence: str) -> None:
        """Report something that is worth a line."""

    def shard_advanced(self, shard: int, rows: int, total: int) -> None:
        """Report that `rows` of a shard's `total` rows are scored."""


class LoggedProgress:
    """Progress as log lines: what a task's log shows in Airflow."""

    def stage_began(self, stage: str) -> None:
        """Log the beginning of a stage."""
        log.info("%s: began", stage)

    def stage_ended(self, stage: str, record: Json) -> None:
        """Log the figures of a stage's record."""
        figures = {key: value for key, value in record.items() if isinstance(value, (int, float, str, bool))}
        log.info("%s: %s", stage, ", ".join(f"{key}={value}" for key, value in figures.items()))

    def waiting(self, seen: str) -> None:
        """Log what is seen."""
        log.info("waiting for data: %s", seen)

    def note(self, sentence: str) -> None:
        """Log the sentence."""
        log.info("%s", sentence)

    def shard_advanced(self, shard: int, rows: int, total: int) -> None:
        """Log nothing: a task's log needs no moving bar."""
