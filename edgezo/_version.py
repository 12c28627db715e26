"""The one place where edgezo's version is written."""

__version__ = "0.1.0"
