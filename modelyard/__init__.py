"""The command line of Modelyard and the settings that all its processes share."""

__version__ = "0.1.0"
