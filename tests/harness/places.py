"""Where things lie in the checkout, whatever room a test lives in."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
