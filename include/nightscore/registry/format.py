"""What a model format is: describe → audit → construct, and what can be done with what was constructed.

A format is a module of `registry.formats`. Nothing of a file may run, and no class of it be created, before `audit` has
passed what `describe` found. Libraries are imported inside the functions: a format that nobody uses need not be there.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from nightscore.errors import ConfigurationError, listed
from nightscore.registry.manifest import FormatName, Input, MissingText, Task
from nightscore.registry.signature import Shape

if TYPE_CHECKING:
    import numpy as np

LARGEST_ARTIFACT = 2 * 2**30


class ArtifactError(ConfigurationError):
    """A model file is not of its format, or damaged, or hostile; nothing of it was run."""


class UntrustedTypesError(ConfigurationError):
    """A model file would create or compute what is not on our list; nothing of it was run."""

    def __init__(
        self,
        what: str,
        types: Sequence[str],
        would: str = "create classes",
        advice: str = "Only scikit-learn's own classes, and not all of them, may be part of a model",
    ) -> None:
        super().__init__(
            f"{what} would {would} that nightscore does not allow: {listed(types)}. Nothing of it was run. {advice}: "
            "move custom steps into the feature query."
        )
        self.types = tuple(types)


class Fitted(Protocol):
    """A constructed model, whatever its library."""

    @property
    def kind(self) -> str:
        """Its class, for people."""

    @property
    def task(self) -> Task:
        """What it predicts."""

    @property
    def classes(self) -> tuple[str, ...]:
        """A classifier's labels in the order of its probabilities."""

    @property
    def names(self) -> Sequence[str] | None:
        """The columns that it was fitted on, where it knows them."""

    @property
    def count(self) -> int | None:
        """How many columns it was fitted on, where it knows that."""

    @property
    def missing_text(self) -> MissingText:
        """How a NULL among text or booleans looked when it was fitted."""

    @property
    def is_reproducible(self) -> bool:
        """Whether it predicts the same bits for a row wherever and beside whichever rows it is computed."""

    def prepare(self, inputs: Sequence[Input], *, named: bool) -> Shape:
        """Make it ready to score in one thread, which may change it; return what it is to be given.

        Args:
            inputs: the signature.
            named: whether it was fitted with column names.
        """

    def predict(self, features: Any) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Return float64 predictions: probabilities, shape (rows, classes), or a regressor's values, shape (rows,).

        Args:
            features: what `signature.decode` makes of a batch; a DataFrame also before `prepare`.
        """


class Format(Protocol):
    """A module of `registry.formats`."""

    @property
    def FORMAT(self) -> FormatName:  # noqa: N802 - a module's constant
        """Its name in manifests."""

    @property
    def FILE(self) -> str:  # noqa: N802
        """What its file is called in the registry."""

    @property
    def LIBRARIES(self) -> tuple[str, ...]:  # noqa: N802
        """Distributions that decide what a prediction is."""

    @property
    def EXTRA(self) -> str | None:  # noqa: N802
        """The extra of the package that installs them; None where they are always there."""

    @property
    def TOLERANCE(self) -> float:  # noqa: N802
        """By how much predictions may differ from the original's; of values above 1, relative to them."""

    def looks_like(self, data: bytes) -> bool:
        """Return whether a file seems to be of this format, from its first bytes."""

    def describe(self, what: str, data: bytes) -> tuple[str, ...]:
        """Return what the file would create or compute beyond what the format trusts anyway, creating none of it.

        Raises:
            ArtifactError: the bytes are not of this format.
        """

    def audit(self, what: str, types: Sequence[str]) -> None:
        """Check that everything that `describe` found is on our list.

        Raises:
            UntrustedTypesError: something is not.
        """

    def construct(self, what: str, data: bytes) -> Any:
        """Create the library's own object from an audited file, and check that it cannot read beyond its own memory.

        Raises:
            ArtifactError: it cannot be created with the libraries installed here, or is malformed.
        """

    def fitted(self, what: str, constructed: Any, classes: Sequence[str]) -> Fitted:
        """Return the constructed object as what scoring needs.

        Args:
            what: what it is called in messages.
            constructed: what `construct` returned.
            classes: a classifier's labels, where its file does not hold them; empty where nobody has named any.

        Raises:
            ArtifactError: it cannot score.
        """
