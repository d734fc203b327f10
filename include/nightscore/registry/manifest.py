"""What a version says about itself: format, digests, signature, libraries, metrics, who and when.

The SHA-256 of the manifest's bytes is the version's identity: the manifest names the digest of every file, so whoever
pins the one has pinned the other.
"""

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from nightscore.objects import to_json

MANIFEST_FILE = "manifest.json"
REFERENCE_FILE = "reference.json"
MOST_CATEGORIES = 1000

Task = Literal["binary", "multiclass", "regression"]
MissingText = Literal["nan", "none"]
FormatName = Literal["sklearn-skops", "onnx", "lightgbm", "xgboost"]
InputType = Literal["int64", "double", "float", "bool", "string", "category<string>", "category<int64>"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Input(_Part):
    """One column that the model reads.

    Attributes:
        name: the column's name as the estimator was fitted with it.
        type: Arrow type, or a pandas category of one.
        nullable: whether the model predicts a row in which it is NULL (tried at registration).
        categories: the values of a category, as the sample's dictionary holds them, at most `MOST_CATEGORIES`.
    """

    name: str
    type: InputType
    nullable: bool
    categories: tuple[int | str, ...] | None = None


class File(_Part):
    """One file of a version: SHA-256 in hex, and size in bytes."""

    sha256: str
    size: Annotated[int, Field(ge=0)]


class Agreement(_Part):
    """How closely a registered model predicts the sample as its original does.

    Attributes:
        original: whose predictions it was compared with: `file`, the file as its library reads it, or the sample's
            column of that name.
        rows: how many rows were compared.
        largest: the largest difference; of values above 1, relative to them.
        mean: the mean difference, likewise.
        differing: rows that are not the same bits.
        tolerance: the largest difference that was allowed.
    """

    original: str
    rows: int
    largest: FiniteFloat
    mean: FiniteFloat
    differing: int
    tolerance: FiniteFloat


class Origin(_Part):
    """Where an imported version was found: a version of a model in another registry.

    Attributes:
        kind: which registry.
        server: its address without credentials; of Vertex AI, the project and the location.
        name, version: what the model is called there.
        run_id: the MLflow run that made it.
        uri: where its files are.
        registered_at: when it was registered there: UTC, ISO 8601.
        alias: the alias it was asked for by.
        tags: what the other registry's users say of it.
    """

    kind: Literal["mlflow", "vertex"]
    server: str
    name: str
    version: Annotated[int, Field(ge=1)]
    run_id: str = ""
    uri: str
    registered_at: str
    alias: str | None = None
    tags: dict[str, str] = {}

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}@{self.version}"

    def is_same(self, other: "Origin") -> bool:
        """Return whether both are one registration, whatever it is called by; its tags may have changed since."""
        return self.model_dump(exclude={"alias", "tags"}) == other.model_dump(exclude={"alias", "tags"})


class Manifest(_Part):
    """One version of a model.

    Attributes:
        name, version: what it is called.
        format: the module of `registry.formats` that reads it.
        estimator: the class, for people.
        task: what its predictions are.
        classes: a classifier's labels in the order of its probabilities, as text.
        named_inputs: whether the estimator was fitted with column names, and is called with them.
        inputs: its columns, in its order.
        missing_text: how a NULL among text or booleans looked to the estimator when it was fitted.
        files: name → digest and size of every file.
        types: the classes that constructing it creates, beyond those its format trusts anyway.
        libraries: versions of what it was registered with.
        metrics: figures of its owner's choice.
        training_data: what it was fitted on, as its owner says it: a table and its partitions, a URI.
        sample_rows: how many rows it was tried on.
        agreement: how closely it predicts them as its original does; None of versions from before that was compared.
        owner: the team that answers for it.
        git_revision: the commit of the code that fitted it.
        created_at: UTC, ISO 8601.
        created_by: who registered it.
        description: for people.
        source: where it was imported from.
    """

    name: str
    version: Annotated[int, Field(ge=1)]
    format: FormatName
    estimator: str
    task: Task
    classes: tuple[str, ...] = ()
    named_inputs: bool
    inputs: Annotated[tuple[Input, ...], Field(min_length=1)]
    missing_text: MissingText = "nan"
    files: dict[str, File]
    types: tuple[str, ...] = ()
    libraries: dict[str, str]
    metrics: dict[str, FiniteFloat] = {}
    training_data: str = ""
    sample_rows: int
    agreement: Agreement | None = None
    owner: str = ""
    git_revision: str = ""
    created_at: str
    created_by: str
    description: str = ""
    source: Origin | None = None

    @property
    def positive_class(self) -> str | None:
        """The label whose probability is a binary classifier's score."""
        return self.classes[1] if self.task == "binary" else None

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return to_json(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Parse a manifest.

        Raises:
            pydantic.ValidationError: it is not one.
        """
        return cls.model_validate_json(data)


def digest(data: bytes) -> str:
    """Return SHA-256 in hex.

    >>> digest(b"")[:12]
    'e3b0c44298fc'
    """
    return hashlib.sha256(data).hexdigest()
