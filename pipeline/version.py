"""The version, kept where hatchling and the manifest both read it."""

__version__ = "0.1.0"
