"""What every other registry must be able to do: say which version a reference means now, and hand its files over."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from nightscore.errors import ConfigurationError, TransientError
from nightscore.registry.manifest import Origin
from nightscore.spec import ModelReference

LARGEST_DOWNLOAD = 2 * 2**30
LARGEST_SAMPLE = 64 * 2**20
MOST_TAGS = 20


class RefusedModelError(ConfigurationError):
    """A model of another registry cannot be imported as it is there; nothing of it was run."""


class SourceAccessError(ConfigurationError):
    """Another registry is not configured, its client is missing, or it refuses what it is asked."""


class SourceUnavailableError(TransientError):
    """Another registry cannot be reached, or failed."""


@dataclass(frozen=True)
class Fetched:
    """What a version consists of, in files of ours.

    Attributes:
        file: the model.
        sample: Parquet or CSV file of input rows; None where there is none that tells the signature.
        no_sample: a sentence why there is none.
        metrics, description: as the other registry has them.
        git_revision: the commit that the other registry knows of.
    """

    file: Path
    sample: Path | None = None
    no_sample: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    description: str = ""
    git_revision: str = ""


class ModelSource(Protocol):
    """Another registry; nothing is contacted before a method is called."""

    @property
    def server(self) -> str:
        """Its address without credentials."""

    def resolve(self, reference: ModelReference) -> Origin:
        """Return the version that a reference means now.

        Raises:
            ModelNotFoundError: there is no such model, version or alias; names the near miss.
            SourceUnavailableError: it cannot be asked.
        """

    def fetch(self, origin: Origin, folder: Path) -> Fetched:
        """Download a version's model, and its sample, into a folder, and nothing else.

        Raises:
            RefusedModelError: its format is refused; its data was not downloaded.
            SourceUnavailableError: it cannot be downloaded now.
        """
