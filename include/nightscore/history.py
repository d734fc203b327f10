"""What was where before, read from a list of moves: `to` is where something was moved, `kind` may be a rollback."""

from collections.abc import Iterable, Mapping
from typing import Any


def standing(moves: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Return what each present move stands on, the oldest first and the present one last.

    A rollback is no promotion: a second one goes further back, and not forth again.

    >>> standing([{"to": 1}, {"to": 2}, {"to": 3}, {"to": 2, "kind": "rollback"}])
    [1, 2]
    """
    found: list[Any] = []
    for move in moves:
        if move.get("kind") == "rollback":
            while found and found[-1] != move["to"]:
                found.pop()
            # What history has forgotten is still where the rollback went.
            if not found:
                found.append(move["to"])
        elif found[-1:] != [move["to"]]:
            found.append(move["to"])
    return found
