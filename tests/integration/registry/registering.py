"""A program for the stress test: many processes register versions of one model and move its aliases, until killed.

    registering.py NAME FOLDER WRITERS ROUNDS

It imports everything once, forks the writers, kills every other one by SIGKILL while it works, and waits for the rest.
Writers write one line of JSON for everything that they were told is done.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import lightgbm  # noqa: F401
import sklearn.linear_model  # noqa: F401 - imported before the fork, once for all

from nightscore.registry.aliases import AliasMovedError
from nightscore.run import build_services
from nightscore.settings import read_settings


def write(name: str, folder: Path, number: int, rounds: int) -> None:
    """Register versions and move aliases; write down what was done."""
    registry = build_services(read_settings(os.environ)).registry
    with (folder / f"{number}.log").open("a", buffering=1) as log:
        for step in range(rounds):
            alias = random.choice(["champion", "challenger"])
            try:
                # Files of two formats: a number must not be given to one of each.
                file = folder / ("model.txt" if number % 3 == 1 else "model.skops")
                version = registry.register(name, file, folder / "sample.parquet", alias=alias)
                log.write(json.dumps({"registered": version.manifest.version, "digest": version.digest}) + "\n")
            except AliasMovedError:
                log.write(json.dumps({"told": alias}) + "\n")
            seen = registry.alias(name, "champion")
            if step % 2 and seen.version is not None:
                try:
                    registry.roll_back(name, "champion", f"{number}.{step}")
                except Exception as error:  # noqa: BLE001 - told that somebody else was first, or that nothing is before
                    log.write(json.dumps({"told": type(error).__name__}) + "\n")


def main() -> None:
    """Fork, kill, wait."""
    name, folder, writers, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    children = []
    for number in range(writers):
        child = os.fork()
        if child == 0:
            random.seed(number)
            write(name, folder, number, rounds)
            os._exit(0)
        children.append(child)
    for child in children[::2]:
        time.sleep(random.uniform(0.1, 0.6))
        os.kill(child, signal.SIGKILL)
    ended = [os.waitpid(child, 0)[1] for child in children]
    sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status) for status in ended]) + "\n")


if __name__ == "__main__":
    main()
