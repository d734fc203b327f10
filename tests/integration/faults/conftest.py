"""Runs of one pipeline, through proxies that disturb them."""

from faults.fixtures import network, nights

__all__ = ["network", "nights"]
