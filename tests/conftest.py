"""The fixtures of streamll's own tests, for the tests that cross packages."""

from conftest import clean, seen

__all__ = ["clean", "seen"]
