"""The records of a run: JSON objects under `runs/<pipeline>/<run_id>/`, each written once by the stage that made it.

They are the truth about a run. Tables of the operations dataset and everything that is shown are derived from them.
"""

from collections.abc import Iterator

from nightscore.objects import Bucket, Json, to_json

ROOT = "runs/"


class RunRecords:
    """The records of one run."""

    def __init__(self, bucket: Bucket, pipeline: str, run_id: str) -> None:
        self.bucket = bucket
        self.pipeline = pipeline
        self.run_id = run_id
        self.prefix = f"{ROOT}{pipeline}/{run_id}/"

    def read(self, name: str) -> Json | None:
        """Return a record, or None when it is not written yet."""
        return self.bucket.read_json(f"{self.prefix}{name}.json")

    def write_once(self, name: str, content: Json) -> Json:
        """Write a record unless there is one; return the record that is there."""
        path = f"{self.prefix}{name}.json"
        if self.bucket.create(path, to_json(content)):
            return content
        stored = self.bucket.read_json(path)
        return content if stored is None else stored

    def receipts(self) -> Iterator[Json]:
        """Yield the receipts of the shards that are done, in order."""
        return self._all("shards/", "**/part-*.json")

    def resumes(self) -> Iterator[Json]:
        """Yield what each process found done that took the run up, in order."""
        return self._all("resumes/", "**/*.json")

    def _all(self, folder: str, pattern: str) -> Iterator[Json]:
        for path in sorted(self.bucket.iter_names(self.prefix + folder, match_glob=pattern)):
            content = self.bucket.read_json(path)
            if content is not None:
                yield content

    @property
    def uri(self) -> str:
        """Where the records are."""
        return self.bucket.uri(self.prefix)


def is_finished(records: RunRecords) -> bool:
    """Return whether a run has ended for good: published, refused by a gate, or a dry run that went through."""
    return records.read("run") is not None


def run_ids(bucket: Bucket, pipeline: str) -> list[str]:
    """Return the ids of a pipeline's runs, the latest partition first."""
    return sorted(bucket.iter_folders(f"{ROOT}{pipeline}/"), reverse=True)
