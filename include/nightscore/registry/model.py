"""A model that was verified, audited and constructed: what scoring is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nightscore.registry.manifest import Manifest
from nightscore.registry.signature import decode

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class Model:
    """A loaded version."""

    manifest: Manifest
    digest: str
    estimator: Any

    @property
    def label(self) -> str:
        """Its name and version, as written beside every prediction."""
        return f"{self.manifest.name}/{self.manifest.version}"

    @property
    def task(self) -> str:
        """`binary`, `multiclass` or `regression`."""
        return self.manifest.task

    @property
    def classes(self) -> Sequence[str]:
        """A classifier's labels in the order of its probabilities."""
        return self.manifest.classes

    def predict(self, batch: "pa.RecordBatch | pa.Table") -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Return float64 predictions: probabilities, shape (rows, classes), or a regressor's values, shape (rows,)."""
        import numpy as np

        features = decode(
            batch, self.manifest.inputs, named=self.manifest.named_inputs, missing_text=self.manifest.missing_text
        )
        if self.manifest.task == "regression":
            values = np.asarray(self.estimator.predict(features), dtype=np.float64)
            return values.reshape(batch.num_rows)
        return np.asarray(self.estimator.predict_proba(features), dtype=np.float64)
