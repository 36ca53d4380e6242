from pathlib import Path

import pytest

from rkvisor.supervisor.config import ModelSection
from rkvisor.supervisor.workers.budgets import first_token_budget_s, load_budget_s, load_timeout_s


@pytest.mark.parametrize(("gigabytes", "seconds"), [(0, 20.0), (1, 65.0), (6, 290.0)])
def test_loading_is_allowed_time_by_the_size_of_the_file(gigabytes: int, seconds: float) -> None:
    assert load_budget_s(gigabytes * 10**9) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("tokens", "rate", "seconds"),
    [(0, 50.0, 10.0), (50, 50.0, 10 + 2 * (1 + 50 / 4096)), (4096, 50.0, 10 + 2 * 4096 / 50 * 2), (4096, 1024.0, 26.0)],
)
def test_the_first_token_is_allowed_time_by_the_length_of_the_prompt(tokens: int, rate: float, seconds: float) -> None:
    assert first_token_budget_s(tokens, rate) == pytest.approx(seconds)


def test_the_slowest_prefills_that_were_reported_stay_within_the_budget() -> None:
    """Qwen3-1.7B on the board: 15 s for 1024 tokens, 71 s for 4096, 226 s for 8192 (facts of the runtime, §5)."""
    for tokens, seconds in ((1024, 15), (4096, 71), (8192, 226)):
        assert seconds < first_token_budget_s(tokens)


def test_the_operators_timeout_goes_before_the_size(tmp_path: Path) -> None:
    model = tmp_path / "m.rkllm"
    model.write_bytes(b"x" * 1000)
    sized = ModelSection(runtime="rknpu", path=str(model))
    assert load_timeout_s(sized) == pytest.approx(load_budget_s(1000))
    told = ModelSection(runtime="rknpu", path=str(model), load_timeout_s=3.5)
    assert load_timeout_s(told) == 3.5


def test_a_file_that_is_missing_or_built_in_gets_the_base() -> None:
    assert load_timeout_s(ModelSection(runtime="sim", path="builtin:tiny")) == 20.0
