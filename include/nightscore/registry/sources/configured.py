"""The other registries that the settings name."""

import functools

from nightscore.clients import build_storage, build_vertex
from nightscore.registry.sources.mlflow import MlflowSource
from nightscore.registry.sources.source import ModelSource
from nightscore.registry.sources.vertex import VertexSource
from nightscore.settings import Settings


def configured_sources(config: Settings) -> dict[str, ModelSource]:
    """Return kind → registry; nothing is contacted yet."""
    found: dict[str, ModelSource] = {}
    if config.mlflow_tracking_uri is not None:
        found["mlflow"] = MlflowSource(config.mlflow_tracking_uri)
    if config.vertex_location is not None:
        client = functools.partial(build_vertex, config)
        storage = functools.partial(build_storage, config)
        found["vertex"] = VertexSource(config.project, config.vertex_location, client, storage)
    return found
