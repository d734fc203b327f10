"""The deployment that is examined, as this process sees it."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightscore.errors import ConfigurationError
from nightscore.run import Services, build_services
from nightscore.settings import SettingError, Settings, read_settings
from nightscore.spec import Spec
from nightscore.specs import SpecError, iter_specs


@dataclass(frozen=True)
class Deployment:
    """What the checks are given.

    Attributes:
        environment: the variables of this process.
        root: the folder that `dags/` and `.nightscore/` are in.
        folder: the folder of the pipelines.
        writes: whether a check may create a table of its own for a moment.
        timeout: seconds within which each family of checks has to end.
    """

    environment: Mapping[str, str]
    root: Path
    folder: Path
    writes: bool = True
    timeout: float = 30.0

    @functools.cached_property
    def settings(self) -> Settings | SettingError:
        """The settings, or what is wrong with them."""
        try:
            return read_settings(self.environment, self.root)
        except SettingError as error:
            return error

    @property
    def config(self) -> Settings:
        """The settings.

        Raises:
            SettingError: they cannot be read.
        """
        if isinstance(self.settings, SettingError):
            raise self.settings
        return self.settings

    @functools.cached_property
    def services(self) -> Services:
        """Warehouse, bucket and registry."""
        return build_services(self.config)

    @functools.cached_property
    def items(self) -> list[Spec | SpecError]:
        """Every spec, or what is wrong with it."""
        return list(iter_specs(self.folder)) if self.folder.is_dir() else []

    @property
    def specs(self) -> list[Spec]:
        """The specs that can be read."""
        return [item for item in self.items if isinstance(item, Spec)]

    @functools.cached_property
    def principal(self) -> str:
        """Who this process acts as, as IAM policies name it; a placeholder where that cannot be told."""
        from nightscore.clients import google_credentials

        try:
            credentials: Any = google_credentials(self.config)
        except ConfigurationError:
            return "PRINCIPAL"
        account = self.config.service_account or getattr(credentials, "service_account_email", None)
        # The metadata server's own account is called "default" until it was asked for a token.
        return f"serviceAccount:{account}" if account and "@" in account else "PRINCIPAL"

    def dataset_of(self, table: str) -> str:
        """Return `project.dataset` of a table."""
        return self.services.warehouse.full_name(table).rsplit(".", 1)[0]
