"""The command ``zoo``: its verbs call public functions and print; nothing else prints."""

from zoo.cli.main import main

__all__ = ["main"]
