"""The publications of a pipeline over all partitions, and what past runs say about the next."""

import datetime as dt

import pytest

from nightscore.publications import iter_latest_publications, write_publication
from nightscore.records import RunRecords
from nightscore.timing import MOST_RUNS, past_runs


@pytest.fixture
def publish(bench):
    """Record a publication, and the run that it is of."""

    def record(run_id, day, token, **summary):
        content = {"kind": "publish", "run_id": run_id}
        write_publication(bench.services.bucket, bench.name, dt.date(2026, 11, day), token, content)
        RunRecords(bench.services.bucket, bench.name, run_id).write_once(
            "run", {"run_id": run_id, "seconds": 10.0, "rows_frozen": 100, "resumed": [], **summary}
        )

    return record


def test_the_last_publication_is_the_one_that_was_written_last_whatever_its_partition_and_token(bench, publish):
    for name, day, token in (("a", 19, 7), ("b", 18, 1), ("c", 17, 2)):
        publish(name, day, token)
    found = iter_latest_publications(bench.services.bucket, bench.name)
    assert [item["run_id"] for item in found] == ["c", "b", "a"]


def test_runs_that_were_taken_up_and_runs_that_come_again_do_not_count(bench, publish):
    publish("a", 17, 1)
    publish("b", 18, 1, resumed=[{"by": "someone"}])
    publish("c", 18, 2)
    publish("a", 17, 2)  # rolled back to
    found = past_runs(bench.services.bucket, bench.name, iter_latest_publications(bench.services.bucket, bench.name))
    assert [run["run_id"] for run in found] == ["a", "c"]


def test_ten_runs_are_enough(bench, publish):
    for number in range(MOST_RUNS + 2):
        publish(f"run{number:02d}", number + 1, 1)
    found = past_runs(bench.services.bucket, bench.name, iter_latest_publications(bench.services.bucket, bench.name))
    assert [run["run_id"] for run in found] == [f"run{number:02d}" for number in range(11, 1, -1)]
