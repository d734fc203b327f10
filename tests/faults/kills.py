"""Killing a run by SIGKILL at a chosen moment, running it again, and looking at what was published all the while."""

import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from faults.calls import Call, stages
from faults.exchange import Exchange, Fault
from faults.network import Network, Rule, only
from faults.nights import Content, Nights
from faults.poller import Poller
from faults.processes import Ended, Nightscore

BEFORE, DURING, AFTER = "before", "during", "after"
RANDOM, TOTAL = "random times", "all"
EVENTS, LAST_EVENT = "/events/", "/events/run_ended"


@dataclass(frozen=True)
class Kill:
    """When a run is killed: around a request, or so many seconds after its start."""

    when: str
    call: Call | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.when} {self.call}" if self.call else f"after {self.seconds:.2f} s"


@dataclass(frozen=True)
class Outcome:
    """What became of a run that was to be killed, of the one after it, and of the partition."""

    kill: Kill
    killed: Ended
    again: Ended
    content: Content
    counts: Counter[int]

    def faults(self, old: Content, new: Content) -> list[str]:
        """Return what is not as it must be."""
        found = []
        if self.kill.call and self.killed.code != -signal.SIGKILL:
            found.append(f"it was not killed, and ended with {self.killed.code}")
        if self.again.code != 0:
            found.append(f"the next run ended with {self.again.code}: {self.again.err[-600:]}")
        if self.content != new:
            found.append(f"the partition holds {self.content} and not {new}")
        if not self.counts or not set(self.counts) <= {old.rows, new.rows}:
            found.append(f"a reader counted {dict(self.counts)}")
        return [f"killed {self.kill}: {fault}" for fault in found]


def boundaries(calls: Iterable[Call]) -> Iterator[Kill]:
    """Yield the kills after which the services are in every state that a run leaves them in between two requests.

    Before each request that changes something, and after the last. Of the entries that events are kept as, which only
    the step that writes them reads again, before the last.
    """
    changing = [call for call in calls if call.changes and (EVENTS not in call.what or LAST_EVENT in call.what)]
    yield from (Kill(BEFORE, call) for call in changing)
    yield Kill(AFTER, changing[-1])


def every_boundary(calls: Iterable[Call]) -> Iterator[Kill]:
    """Yield the kills before, during and after each request that is sent to write, SELECTs among them."""
    for call in calls:
        if call.writes:
            yield from (Kill(when, call) for when in (BEFORE, DURING, AFTER))


def kill_and_run_again(
    nights: Nights, network: Network, kill: Kill, *, pipeline: str | None = None, **variables: str
) -> Outcome:
    """Start a run, kill it, run it again to its end; a reader counts the partition's rows the whole time."""
    day, table = nights.next_day(), nights.table_of(pipeline)
    victim: Future[Nightscore] = Future()
    network.begin(*([Rule(only(kill.call), killing(victim, kill.when))] if kill.call else []))
    with Poller(nights.bench.services.warehouse.config, table, day) as poller:
        process = nights.start(day, network, pipeline=pipeline, **variables)
        victim.set_result(process)
        if kill.call is None:
            time.sleep(kill.seconds)
            process.kill()
        killed = process.wait()
        network.begin()
        again = nights.start(day, network, pipeline=pipeline, **variables).wait()
    return Outcome(kill, killed, again, nights.content(day, table), poller.counts)


def figures(outcomes: Iterable[Outcome], calls: Iterable[Call], old: Content, new: Content) -> str:
    """Return what was shown, as a table: a line for each stage and one for the kills at random times."""
    outcomes, stage_of = list(outcomes), stages(calls)
    lines = ["| killed in | places | kills | not complete after one more run | polls | polls of another count |"]
    lines += ["|---|---|---|---|---|---|"]
    for stage in (*dict.fromkeys(stage_of.values()), RANDOM, TOTAL):
        own = [o for o in outcomes if stage in (TOTAL, stage_of[o.kill.call] if o.kill.call else RANDOM)]
        places = len({outcome.kill.call for outcome in own if outcome.kill.call})
        wrong = sum(bool(outcome.faults(old, new)) for outcome in own)
        polls = sum((outcome.counts for outcome in own), Counter())
        odd = sum(polls.values()) - polls[old.rows] - polls[new.rows]
        if own:
            lines.append(f"| {stage} | {places or ''} | {len(own)} | {wrong} | {polls.total():,} | {odd} |")
    return "\n".join(lines)


def killing(victim: "Future[Nightscore]", when: str) -> Fault:
    """The client is killed before the request arrives, while the server works on it, or before it gets the answer."""

    def kill(exchange: Exchange) -> None:
        if when == AFTER:
            exchange.forward()
        if when == DURING:
            exchange.forward_and_leave()
        victim.result().kill()
        exchange.reset()

    return kill
