"""Many nights of one small pipeline: every partition holds the same rows, and was published before with fewer."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.ensemble import HistGradientBoostingClassifier

from faults.network import Network
from faults.processes import Nightscore

ROWS = 300
OLD_ROWS = 200
FIRST_DAY = dt.date(2025, 1, 1)
PRIME = 2**31 - 1

# A missing, doubled or changed row changes one of these; the order of rows does not.
CONTENT = (
    "SELECT COUNT(*) AS n, COUNT(DISTINCT id) AS ids, COUNT(DISTINCT run_id) AS runs, "
    f"IFNULL(SUM(MOD(MOD(id, {PRIME}) * MOD(CAST(FLOOR(score * POW(2, 52)) AS INT64), {PRIME}), {PRIME})), 0) AS total "
    "FROM `{table}` WHERE snapshot_date = DATE '{day}'"
)


@dataclass(frozen=True)
class Content:
    """What a partition holds: rows, different keys, different runs, and the sum of key times score, modulo a prime."""

    rows: int
    ids: int
    runs: int
    total: int


class Nights:
    """A pipeline, its partitions, and processes that score them.

    Attributes:
        new: what every partition must hold once it is published.
        old: what it holds before.
    """

    def __init__(self, bench: Any, environment: Mapping[str, str], days: int, rows: int = ROWS, **changes: Any) -> None:
        self.bench = bench
        self.name: str = bench.name
        self.table = self.table_of(None)
        self._environment = {**environment, "NIGHTSCORE_PIPELINES_DIR": str(bench.folder / "pipelines")}
        self._unused = (FIRST_DAY + dt.timedelta(day) for day in range(days))
        self._processes: list[Nightscore] = []
        rng = np.random.default_rng(7)
        ids = np.arange(rows) * 7 + 1
        one = pa.table({"id": ids, "balance": rng.normal(1000, 300, rows), "age": rng.integers(18, 90, rows)})
        dates = [pa.array([FIRST_DAY + dt.timedelta(day)] * rows, pa.date32()) for day in range(days)]
        bench.write("features", pa.concat_tables([one.append_column("snapshot_date", date) for date in dates]))
        inputs = one.select(["balance", "age"])
        estimator = HistGradientBoostingClassifier(max_iter=3, random_state=0)
        estimator.fit(inputs.to_pandas(), inputs["balance"].to_numpy() > 1000)
        bench.register(estimator, inputs.slice(0, ROWS))
        scores = estimator.predict_proba(inputs.to_pandas())[:, 1]
        self._published = list(zip(ids.tolist(), scores.tolist(), strict=True))
        self.new = self.first(rows)
        self.old = _content((key, 0.5) for key, _ in self._published[:OLD_ROWS])
        self.add_pipeline(self.name, **changes)

    def add_pipeline(self, name: str, **changes: Any) -> None:
        """Put a spec where the command finds it."""
        folder = self.bench.folder / "pipelines" / name
        folder.mkdir(parents=True)
        own = {"limits": {"shards": 1}, "predictions": {"table": self.table_of(name)}}
        (folder / "pipeline.yaml").write_text(self.bench.spec_text(**{**own, **changes}))

    def publish_old(self) -> None:
        """Publish one night for the table's sake, and give every other partition its older content."""
        self.bench.run(self.bench.spec(), self.next_day())
        self.bench.sql(
            f"INSERT INTO {self.table} (id, snapshot_date, score, model_version, run_id, scored_at) "
            "SELECT id, snapshot_date, 0.5, 'old/1', 'old', TIMESTAMP '2025-01-01 00:00:00+00' "
            f"FROM {{dataset}}.features WHERE id <= {OLD_ROWS * 7} AND snapshot_date > DATE '{FIRST_DAY}'"
        )

    def first(self, rows: int) -> Content:
        """Return what a partition must hold when only its first rows are there to be scored."""
        return _content(self._published[:rows])

    def keep_first(self, day: dt.date, rows: int) -> None:
        """Delete all other rows of a partition's features."""
        last = self._published[rows - 1][0]
        self.bench.sql(f"DELETE FROM {{dataset}}.features WHERE snapshot_date = DATE '{day}' AND id > {last}")

    def next_day(self) -> dt.date:
        """Return a partition that was not used before."""
        return next(self._unused)

    def table_of(self, pipeline: str | None) -> str:
        """Return where a pipeline publishes; None: the first one."""
        return f"{pipeline or self.name}.predictions"

    def content(self, day: dt.date, table: str | None = None) -> Content:
        """Return what a partition holds now."""
        [row] = self.bench.sql(CONTENT.format(table=table or self.table, day=day))
        return Content(row["n"], row["ids"], row["runs"], row["total"])

    def start(
        self,
        day: dt.date,
        network: Network,
        *arguments: str,
        pipeline: str | None = None,
        patience: float | None = None,
        **variables: str,
    ) -> Nightscore:
        """Start `nightscore run` of one partition, whose clients reach the services through the proxies."""
        command = ["run", pipeline or self.name, "--partition", str(day), *arguments]
        environment = {**self._environment, **network.environment, **variables}
        process = Nightscore(command, environment, self.bench.folder, patience)
        self._processes.append(process)
        return process

    def close(self) -> None:
        """Kill what still runs."""
        for process in self._processes:
            process.kill()


def _content(published: Iterable[tuple[int, float]]) -> Content:
    rows = list(published)
    total = sum(key * (int(score * 2**52) % PRIME) % PRIME for key, score in rows)
    return Content(len(rows), len({key for key, _ in rows}), 1, total)
