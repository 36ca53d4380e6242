"""Images, videos and the program's own tokenizer and embeddings."""

import ctypes
from typing import Any

import pytest

from harness.sim_driver import Simulator
from harness.sim_vocabulary import tokenise

pytestmark = pytest.mark.api
WIDTH = 64


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKVISOR_SIM_TIME_SCALE", "0")


def rows(sim: Simulator, n: int, last: float = 0.0) -> Any:
    """n embedding rows whose very last number is ``last``."""
    data = (ctypes.c_float * (WIDTH * n))()
    data[WIDTH * n - 1] = last
    sim.keep.append(data)
    return data


def media_input(sim: Simulator, prompt: str, **fields: Any) -> Any:
    """A multimodal input; ``image__n_image`` names a nested field (F5), ``n_image`` a flat one."""
    given = sim.abi.RKLLMInput(input_type=sim.abi.RKLLM_INPUT_MULTIMODAL)
    given.multimodal_input.prompt = prompt.encode()
    for name, value in fields.items():
        outer, _, inner = name.partition("__")
        setattr(getattr(given.multimodal_input, outer) if inner else given.multimodal_input, inner or outer, value)
    return given


def one_image(sim: Simulator, family: str, prompt: str, n: int, last: float = 0.0) -> Any:
    if family == "f5":
        return media_input(
            sim,
            prompt,
            image__image_embed=rows(sim, n, last),
            image__n_image_tokens=n,
            image__n_image=1,
            image__image_start=b"[",
            image__image_end=b"]",
        )
    more = {} if family == "f1" else {"n_image": 1}
    return media_input(sim, prompt, image_embed=rows(sim, n, last), n_image_tokens=n, **more)


@pytest.mark.parametrize("family", ["f1", "f3", "f4", "f5"])
def test_an_image_takes_the_place_of_its_tag_and_is_read_to_the_last_number(family: str) -> None:
    tags = {} if family == "f5" else {"img_start": b"[", "img_end": b"]"}
    texts = []
    for prompt, last in (
        ("see <image> now", 0.0),
        ("see <image> now", 1.0),
        ("<image>see  now", 0.0),
        ("see  now", 0.0),
    ):
        with Simulator(family, max_new_tokens=10, **tags) as sim:
            outcome = sim.run(one_image(sim, family, prompt, 3, last))
            assert len(outcome.ids) == 10
            if family in ("f4", "f5"):
                assert sim.cached() == [len(tokenise(prompt.replace("<image>", ""))) + 2 + 3 + 10]
            texts.append(outcome.text)
    assert len(set(texts[:3])) == 3
    assert texts[2] == texts[3], "an image without a tag goes in front"


def test_a_prompt_without_any_image_is_a_plain_prompt() -> None:
    for family in ("f1", "f3", "f4", "f5"):
        with Simulator(family, max_new_tokens=10) as sim:
            plain = sim.run("see <image> now").text
        with Simulator(family, max_new_tokens=10) as sim:
            assert sim.run(media_input(sim, "see <image> now")).text == plain


def test_several_images_and_a_video_are_put_in_order() -> None:
    texts = set()
    for prompt in ("a<image>b<video>c<image>", "a<video>b<image>c<image>"):
        with Simulator(max_new_tokens=10) as sim:
            given = media_input(
                sim,
                prompt,
                image__image_embed=rows(sim, 4),
                image__n_image_tokens=2,
                image__n_image=2,
                video__video_embed=rows(sim, 6, 1.0),
                video__n_frame_tokens=2,
                video__n_frame_per_video=3,
                video__n_video=1,
                video__video_start=b"{",
                video__video_end=b"}",
            )
            texts.add(sim.run(given).text)
            assert sim.cached() == [3 + 2 * 2 + (1 + 6 + 1) + 10]
    assert len(texts) == 2


@pytest.mark.parametrize("family", ["f3", "f4", "f5"])
def test_the_second_image_is_its_own(family: str) -> None:
    texts = set()
    for last in (0.0, 1.0):
        with Simulator(family, max_new_tokens=10) as sim:
            given = one_image(sim, family, "a<image>b<image>", 3)
            target = given.multimodal_input.image if family == "f5" else given.multimodal_input
            target.n_image = 2
            target.image_embed = rows(sim, 6, last)
            texts.add(sim.run(given).text)
    assert len(texts) == 2


@pytest.mark.parametrize("family", ["f1", "f3", "f4", "f5"])
def test_more_image_tokens_than_context_are_refused_unread(family: str) -> None:
    with Simulator(family) as sim:
        given = one_image(sim, family, "a", 1)
        target = given.multimodal_input.image if family == "f5" else given.multimodal_input
        target.n_image_tokens = 2**62
        assert sim.run(given).status == -1
        if family != "f1":
            target.n_image_tokens = 1
            target.n_image = 2**62 if family == "f5" else 2**40
            # Only one image is really there: the count alone must not be believed beyond the context.
            target.image_embed = rows(sim, 600)
            assert sim.run(given).status == -1


def test_the_programs_tokenizer_is_asked_for_every_prompt() -> None:
    asked: list[tuple[int | None, bytes]] = []

    def tokenizer(userdata: int | None, text: bytes, size: int, ids: Any, room: int) -> int:
        asked.append((userdata, text[:size]))
        assert room >= 3
        for i in range(3):
            ids[i] = 300 + i
        return 3

    with Simulator(max_new_tokens=10) as sim:
        expected = sim.run([300, 301, 302]).text
        hook = sim.abi.LLMTokenizerCallback(tokenizer)
    with Simulator(max_new_tokens=10, hooks={"tokenizer_callback": hook, "tokenizer_userdata": 11}) as sim:
        assert sim.run("whatever").text == expected
        assert sim.cached() == [13]
    assert asked == [(11, b"whatever")]


def test_a_tokenizer_that_fails_or_invents_ids_fails_the_run() -> None:
    for count, first in ((-1, 0), (10**6, 0), (1, 10**6)):

        def tokenizer(
            _userdata: Any, _text: bytes, _size: int, ids: Any, _room: int, n: int = count, i: int = first
        ) -> int:
            ids[0] = i
            return n

        with Simulator() as sim:
            hook = sim.abi.LLMTokenizerCallback(tokenizer)
        with Simulator(hooks={"tokenizer_callback": hook}) as sim:
            assert sim.run("whatever").status == -1


def test_the_programs_embeddings_are_asked_for_prompt_and_generated_tokens_and_count() -> None:
    asked: list[list[int]] = []

    def run(fill: int, status: int = 0) -> tuple[int, bytes]:
        def embed(userdata: int | None, ids: Any, n: int, out: int, size: int) -> int:
            assert userdata == 12
            assert size == n * WIDTH * 4
            asked.append(ids[:n])
            ctypes.memset(out, fill, size)
            return status

        with Simulator() as probe:
            hook = probe.abi.LLMGetEmbedCallback(embed)
        with Simulator(max_new_tokens=3, hooks={"embed_callback": hook, "embed_userdata": 12}) as sim:
            outcome = sim.run("ab")
            return outcome.status, outcome.text

    status, text = run(1)
    assert status == 0
    assert asked[0] == tokenise("ab")
    assert [len(ids) for ids in asked] == [2, 1, 1, 1]
    assert run(1) == (0, text)
    assert run(2)[1] != text
    assert run(1, status=1)[0] == -1
