"""The one place where edgezo's version is written."""

__version__ = "0.1.0"

CREATED_BY = f"edgezo {__version__}"
"""What receipts and adapters name as their maker."""
