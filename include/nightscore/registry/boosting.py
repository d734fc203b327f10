"""What LightGBM's and XGBoost's models have in common: labels, categories, and how a frame becomes their matrix."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nightscore.errors import ConfigurationError, listed
from nightscore.registry.format import ArtifactError
from nightscore.registry.manifest import Input, Task
from nightscore.registry.signature import SampleError

if TYPE_CHECKING:
    import numpy as np

MOST_CLASSES = 10_000
MOST_COLUMNS = 1_000_000

Categories = dict[str, list[Any]]


class UnknownCategoryError(ConfigurationError):
    """A row has a category that the model was not fitted on, and its library refuses such rows."""

    def __init__(self, column: str, count: int) -> None:
        super().__init__(
            f"The column {column!r} holds categories that the model was not fitted on: {count:,} in one batch. XGBoost "
            "predicts no such row: reject it by a row rule, or make it NULL or another category in the feature query."
        )


def task_and_labels(what: str, outputs: int | None, classes: Sequence[str]) -> tuple[Task, tuple[str, ...]]:
    """Return what a booster predicts, and its labels: those that were named, or "0", "1", ….

    Args:
        what: what it is called in messages.
        outputs: how many classes it tells apart; None of a regressor.
        classes: the labels that were named at registration.

    Raises:
        ArtifactError: other labels were named than it can have.
    """
    if outputs is None:
        if classes:
            raise ArtifactError(f"{what} is a regressor, which has no classes; {listed(classes)} were named.")
        return "regression", ()
    if classes and len(classes) != outputs:
        raise ArtifactError(f"{what} tells {outputs} classes apart, and these labels were named: {listed(classes)}.")
    labels = tuple(classes) or tuple(str(number) for number in range(outputs))
    return ("binary" if outputs == 2 else "multiclass"), labels


def require_categories(what: str, inputs: Sequence[Input], categories: Categories, known: bool) -> None:
    """Check that the sample's categories are those of the file.

    Args:
        what: what it is called in messages.
        inputs: the signature.
        categories: column → its categories in the order of their codes, of the columns whose categories are known.
        known: whether the file tells them.

    Raises:
        SampleError: a column is a category in one of them only, or of another type.
    """
    asked = {item.name for item in inputs if item.type.startswith("category")}
    if asked and not known:
        raise SampleError(
            f"The sample's columns {listed(sorted(asked))} are categories, and {what} does not hold its categories. "
            "Give it the numbers that it was fitted on, or save it with a newer version of its library."
        )
    if asked != set(categories):
        raise SampleError(
            f"The categories of {what} are the columns {listed(sorted(categories)) or 'none'}, and those of the sample "
            f"{listed(sorted(asked)) or 'none'}. Save the sample as Parquet from the DataFrame it was fitted on."
        )
    for item in inputs:
        if item.name in categories:
            is_text = item.type == "category<string>"
            if any(isinstance(value, str) != is_text for value in categories[item.name]):
                raise SampleError(
                    f"The sample's column {item.name!r} is {item.type}, and the categories of {what} are of another "
                    "type. Save the sample as Parquet from the DataFrame it was fitted on."
                )


def require_numbers(what: str, inputs: Sequence[Input]) -> None:
    """Check that no column of the sample is text.

    Raises:
        SampleError: one is.
    """
    text = [item.name for item in inputs if item.type == "string"]
    if text:
        raise SampleError(
            f"The sample's columns {listed(text)} are text, and {what} reads numbers and categories. Where they are "
            "categories, save the sample as Parquet from the DataFrame that it was fitted on."
        )


def as_numbers(frame: Any) -> Any:
    """Return a frame whose booleans with NULLs are numbers with NaN; categories stay as they are."""
    return frame.astype({name: "float64" for name, kind in frame.dtypes.items() if kind.kind == "O"})


def coded(frame: Any, categories: Categories, *, unknown: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return a frame as a float64 matrix in which categories are their numbers, NaN where NULL.

    Args:
        frame: the rows.
        categories: column → its categories in the order of their numbers.
        unknown: of a category that is not among them: `missing`, or `refused`.

    Raises:
        UnknownCategoryError: there is one, and it is refused.
    """
    import numpy as np

    matrix = np.empty((len(frame), frame.shape[1]), order="F")
    for index, name in enumerate(frame.columns):
        column = frame[name]
        if name not in categories:
            matrix[:, index] = column.to_numpy("float64")
            continue
        # Once for every value of the batch's own dictionary, and not for every row.
        asked = _index(column.cat.categories)
        numbers = _index(categories[name]).get_indexer(asked).astype(np.float64)
        if unknown == "refused" and (numbers < 0).any():
            raise UnknownCategoryError(name, int((numbers < 0).sum()))
        table = np.append(np.where(numbers < 0, np.nan, numbers), np.nan)
        matrix[:, index] = table[column.cat.codes.to_numpy()]  # a NULL has the code -1, which is the last
    return matrix


def _index(values: Any) -> Any:
    """Return values as an index that tells texts and numbers apart, and 1 from 1.0 not."""
    import pandas as pd

    return pd.Index(values, dtype=object)
