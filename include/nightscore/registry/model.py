"""A model that was verified, audited and constructed: what scoring is given."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nightscore.registry.format import Fitted
from nightscore.registry.manifest import Manifest
from nightscore.registry.signature import Shape, decode

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class Model:
    """A loaded version; `shape` is what `fitted` is given: a DataFrame or a float64 matrix."""

    manifest: Manifest
    digest: str
    fitted: Fitted
    shape: Shape

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

    @property
    def form(self) -> Hashable:
        """What `decode` makes of a batch: models of one form can share it."""
        inputs = tuple((item.name, item.type) for item in self.manifest.inputs)
        return self.shape, inputs, self.manifest.missing_text

    def decode(self, batch: "pa.RecordBatch | pa.Table") -> Any:
        """Return a batch as the model takes it: a DataFrame, or a read-only float64 matrix (rows, inputs)."""
        return decode(batch, self.manifest.inputs, shape=self.shape, missing_text=self.manifest.missing_text)

    def predict_decoded(self, features: Any) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Return float64 predictions: probabilities, shape (rows, classes), or a regressor's values, shape (rows,)."""
        return self.fitted.predict(features)

    def predict(self, batch: "pa.RecordBatch | pa.Table") -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Return what `predict_decoded` returns of the decoded batch."""
        return self.predict_decoded(self.decode(batch))
