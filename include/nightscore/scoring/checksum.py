"""An order-free checksum over keys and predictions, the same number from NumPy while scoring and from SQL afterwards.

Every row gives one product: the 60-bit hash of its keys times an integer that stands for its prediction. The products
are summed modulo the Mersenne prime 2^31 - 1 and modulo 2^31. A sum does not depend on the order of the rows or on how
they are split into shards; a lost row, a row twice, a changed score, or two scores that changed places alter it, each
with a chance of less than one in 2^31 of going unnoticed.

A prediction's integer holds its value down to 2^-52; GoogleSQL has no access to a float's bits. Both sides use floor,
and multiply by powers of two only, so nothing is ever rounded differently.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

PRIME = 2**31 - 1
MASK = 2**31 - 1  # of the modulus 2^31: the same digits as the prime, another meaning
FRACTION = 2**52
WHOLE = 2**53


@dataclass(frozen=True)
class Checksum:
    """Rows, and the two sums over them.

    >>> str(Checksum(2, 255, 16) + Checksum(1, 1, 0))
    '3-0000010000000010'
    >>> Checksum.parse("3-0000010000000010")
    Checksum(rows=3, modulo_prime=256, modulo_power=16)
    """

    rows: int
    modulo_prime: int
    modulo_power: int

    def __add__(self, other: "Checksum") -> "Checksum":
        return Checksum(
            self.rows + other.rows,
            (self.modulo_prime + other.modulo_prime) % PRIME,
            (self.modulo_power + other.modulo_power) & MASK,
        )

    def __str__(self) -> str:
        return f"{self.rows}-{self.modulo_prime:08x}{self.modulo_power:08x}"

    @classmethod
    def zero(cls) -> "Checksum":
        """Return the checksum of no rows."""
        return cls(0, 0, 0)

    @classmethod
    def parse(cls, text: str) -> "Checksum":
        """Return the checksum that a record holds as text.

        Raises:
            ValueError: the text is not one.
        """
        found = re.fullmatch(r"(\d+)-([0-9a-f]{8})([0-9a-f]{8})", text)
        if found is None:
            raise ValueError(f"{text!r} is not a checksum")
        return cls(int(found[1]), int(found[2], 16), int(found[3], 16))


def checksum(hashes: "np.ndarray[Any, Any]", predictions: "pa.Table | pa.RecordBatch", task: str) -> Checksum:
    """Return the checksum of a batch.

    Args:
        hashes: int64 ≥ 0, shape (rows,): the hash of each row's keys.
        predictions: what `score` returned for the same rows.
        task: `binary`, `multiclass` or `regression`.
    """
    import numpy as np

    if task == "multiclass":
        values = _of_classes(predictions)
    else:
        column = predictions.column("score" if task == "binary" else "prediction")
        numbers = np.asarray(column.to_numpy(zero_copy_only=False) if hasattr(column, "buffers") else column.to_numpy())
        values = _of_shares(numbers) if task == "binary" else _of_numbers(numbers)
    products = _reduced(_reduced(hashes) * _reduced(values))
    with np.errstate(over="ignore"):  # 64-bit overflow keeps the low 31 bits, which are all that counts
        low = int((hashes * values).sum())
    return Checksum(len(values), int(products.sum()) % PRIME, low & MASK)


def sql_value(task: str) -> str:
    """Return GoogleSQL for the integer that stands for a row's prediction: INT64, at least 1.

    >>> sql_value("binary")
    '1 + CAST(FLOOR(score * 4503599627370496) AS INT64)'
    """
    if task == "binary":
        return f"1 + CAST(FLOOR(score * {FRACTION}) AS INT64)"
    if task == "regression":
        size = "ABS(prediction)"
        return (
            f"1 + IF(prediction < 0, 1, 0) + CAST(FLOOR(({size} - FLOOR({size})) * {FRACTION}) AS INT64)"
            f" + 3 * MOD(CAST(FLOOR(LEAST({size}, {WHOLE})) AS INT64), {PRIME})"
            f" + 5 * MOD(CAST(FLOOR(LEAST({size} / {WHOLE}, {WHOLE})) AS INT64), {PRIME})"
        )
    share = f"MOD(CAST(FLOOR(p.probability * {FRACTION}) AS INT64), {PRIME})"
    return (
        f"1 + {_sql_label('prediction')} + (SELECT MOD(SUM(MOD({_sql_label('p.label')} * {share}, {PRIME})), {PRIME}) "
        "FROM UNNEST(probabilities) AS p)"
    )


def sql_sums(hashed: str, value: str) -> str:
    """Return GoogleSQL for the two sums, as the columns `modulo_prime` and `modulo_power` of an aggregation."""

    def total(modulus: int) -> str:
        return f"MOD(SUM(MOD(MOD({hashed}, {modulus}) * MOD({value}, {modulus}), {modulus})), {modulus})"

    return f"{total(PRIME)} AS modulo_prime, {total(MASK + 1)} AS modulo_power"


def _reduced(values: Any) -> Any:
    """Return numbers congruent modulo the prime and not above 2^31 + 2, so that two of them can be multiplied.

    Two rounds of adding the digits in base 2^31, which is much faster than a division.
    """
    once = (values & PRIME) + (values >> 31)
    return (once & PRIME) + (once >> 31)


def _of_shares(shares: Any) -> Any:
    import numpy as np

    return (shares * FRACTION).astype(np.int64) + 1  # a cast cuts off, which is floor for what is not negative


def _of_numbers(numbers: Any) -> Any:
    import numpy as np

    size = np.abs(numbers)
    below = np.floor(size)
    fraction = ((size - below) * FRACTION).astype(np.int64)
    whole = np.minimum(below, WHOLE).astype(np.int64)
    huge = np.minimum(size / WHOLE, WHOLE).astype(np.int64)
    return 1 + (numbers < 0) + fraction + 3 * (whole % PRIME) + 5 * (huge % PRIME)


def _of_classes(predictions: Any) -> Any:
    """Return the integers of a multiclass model's rows; every row holds the same labels in the same order."""
    import numpy as np
    import pyarrow as pa

    rows = predictions.num_rows
    if rows == 0:
        return np.zeros(0, dtype=np.int64)
    pairs = _flat(predictions.column("probabilities"))
    classes = len(pairs) // rows
    labels = [_label(text) for text in pairs.field("label").slice(0, classes).to_pylist()]
    shares = np.asarray(pairs.field("probability")).reshape(rows, classes)
    terms = _reduced((shares * FRACTION).astype(np.int64)) % PRIME * np.array(labels, dtype=np.int64) % PRIME
    winners = predictions.column("prediction").cast(pa.string()).to_pylist()
    known: dict[str, int] = {text: _label(text) for text in set(winners)}
    return 1 + np.array([known[text] for text in winners], dtype=np.int64) + terms.sum(axis=1) % PRIME


def _flat(column: Any) -> Any:
    import pyarrow as pa

    flat = column.flatten() if isinstance(column, pa.ListArray) else column.combine_chunks().flatten()
    return flat.combine_chunks() if isinstance(flat, pa.ChunkedArray) else flat


def _label(text: str) -> int:
    return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:7], 16)


def _sql_label(column: str) -> str:
    return f"CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5({column})), 1, 7)) AS INT64)"


def total(parts: Sequence[Checksum]) -> Checksum:
    """Return the checksum of several batches taken together."""
    return sum(parts, Checksum.zero())
