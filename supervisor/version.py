"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version


def version() -> str:
    """Of rkvisor, or "0+unknown" from a tree that was never installed."""
    try:
        return distribution_version("rkvisor")
    except PackageNotFoundError:
        return "0+unknown"
