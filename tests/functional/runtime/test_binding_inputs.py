"""What a run of each family is handed and what it gives back, seen by the recorder."""

import array
import struct
from typing import Any

import pytest

from harness.recorder import Recorded
from rkvisor.cython_ext._rkllm import NotSupported, RkllmError
from rkvisor.cython_ext.inputs import Image, Infer, Input, Video

pytest_plugins = ("harness.recorded",)
pytestmark = pytest.mark.api

PROMPT = Input(kind="prompt", prompt="héllo")
ROWS = array.array("f", range(12))


def number(family: str) -> int:
    return int(family[1])


def test_a_run_calls_back_with_state_token_and_text(recorded: Recorded) -> None:
    recorded.init()
    assert recorded.runtime.run(PROMPT, Infer()) == 0
    perf = {"perf": (1.5, 2, 2.5, 3, 4.5)} if number(recorded.family) >= 4 else None
    assert recorded.events == [(1, 0, 0, b"a", None), (0, 0, 1, b"b", None), (2, 0, -1, None, perf)]
    assert "prompt héllo" in recorded.lines()


def test_tokens_and_embeddings_reach_the_library(recorded: Recorded) -> None:
    recorded.init()
    ids = struct.pack("=4i", 5, 6, 7, 8)
    for tokens in ([5, 6, 7, 8], array.array("i", [5, 6, 7, 8]), array.array("q", [5, 6, 7, 8]), ids):
        recorded.runtime.run(Input(kind="tokens", tokens=tokens), Infer())
        assert "tokens n=4 first=5 last=8" in recorded.lines()
    unaligned = memoryview(b"x" + ROWS.tobytes())[1:]
    for embed in (ROWS, ROWS.tobytes(), unaligned):
        recorded.runtime.run(Input(kind="embed", embed=embed, n_tokens=3), Infer())
        assert "embed n=3 1" in recorded.lines()


def test_an_image_reaches_the_library_as_far_as_its_family_goes(recorded: Recorded) -> None:
    recorded.init()
    image = Image(embed=ROWS, n_image_tokens=4, width=30, height=20)
    recorded.runtime.run(Input(kind="multimodal", prompt="see", image=image), Infer())
    lines = [line for line in recorded.lines() if line.startswith("image")]
    if recorded.family == "F5":
        assert lines == ["image see 1 tokens=4 n=1 30x20 NULL NULL NULL"]
    elif number(recorded.family) >= 3:
        assert lines == ["image see 1 tokens=4", "image n=1 30x20"]
    else:
        assert lines == ["image see 1 tokens=4"]


def test_f5_takes_images_with_marks_and_videos(recorded_f5: Recorded) -> None:
    recorded_f5.init()
    image = Image(embed=ROWS, n_image_tokens=2, n_image=3, start="<i>", end="</i>", content="<p>")
    video = Video(embed=ROWS, n_frame_tokens=2, n_frame_per_video=3, n_video=2, width=7, height=8, content="<v>")
    recorded_f5.runtime.run(Input(kind="multimodal", prompt="see", image=image, video=video), Infer())
    lines = recorded_f5.lines()
    assert "image see 1 tokens=2 n=3 0x0 <i> </i> <p>" in lines
    assert "video 1 tokens=2 frames=3 n=2 7x8 <v>" in lines


def test_the_parameters_of_a_run_reach_the_library_as_far_as_its_family_goes(recorded: Recorded) -> None:
    recorded.init()
    family = number(recorded.family)
    options: dict[str, Any] = {"role": "tool", "enable_thinking": True} if family >= 4 else {}
    infer = Infer(mode="hidden", lora="poet", prompt_cache="/cache", save_prompt_cache=True, keep_history=family >= 2)
    recorded.runtime.run(Input(kind="prompt", prompt="x", **options), infer)
    lines = recorded.lines()
    assert "infer mode=1 lora=poet cache=/cache save=1" in lines
    assert ("infer keep_history=1" in lines) == (family >= 2)
    assert ("input role=tool thinking=1" in lines) == (family >= 4)


def test_f5_takes_sampling_and_a_token_limit_per_run(recorded_f5: Recorded) -> None:
    recorded_f5.init(mirostat_eta=0.5)
    infer = Infer(
        lora="poet",
        prompt_cache="/cache",
        save_prompt_cache=True,
        keep_history=True,
        max_new_tokens=9,
        sampling={"top_k": 7, "temperature": 0},
    )
    recorded_f5.runtime.run(Input(kind="prompt", prompt="x", role="tool", enable_thinking=True), infer)
    lines = recorded_f5.lines()
    assert "input role=tool thinking=1" in lines
    assert "infer mode=0 lora=poet cache=/cache save=1" in lines
    assert lines[-3:] == [
        "infer keep_history=1",
        "infer max_new_tokens=9",
        "sampling top_k=7 temperature=0.00 eta=0.50",  # what is left out is as at init
    ]


@pytest.mark.parametrize(
    ("first", "what", "input", "infer"),
    [
        (2, "logits", PROMPT, Infer(mode="logits")),
        (2, "keep_history", PROMPT, Infer(keep_history=True)),
        (4, "role", Input(kind="prompt", prompt="x", role="tool"), Infer()),
        (4, "enable_thinking", Input(kind="prompt", prompt="x", enable_thinking=True), Infer()),
        (5, "sampling", PROMPT, Infer(sampling={})),
        (5, "max_new_tokens", PROMPT, Infer(max_new_tokens=1)),
        (
            5,
            "image.start",
            Input(kind="multimodal", prompt="x", image=Image(embed=ROWS, n_image_tokens=1, start="<")),
            Infer(),
        ),
        (
            5,
            "video",
            Input(kind="multimodal", prompt="x", video=Video(embed=ROWS, n_frame_tokens=1, n_frame_per_video=1)),
            Infer(),
        ),
        (
            3,
            "n_image",
            Input(kind="multimodal", prompt="x", image=Image(embed=ROWS, n_image_tokens=1, n_image=2)),
            Infer(),
        ),
    ],
)
def test_an_option_is_refused_by_families_before_the_one_that_has_it(
    recorded: Recorded, first: int, what: str, input: Input, infer: Infer
) -> None:
    recorded.init()
    if number(recorded.family) >= first:
        assert recorded.runtime.run(input, infer) == 0
        return
    with pytest.raises(NotSupported) as caught:
        recorded.runtime.run(input, infer)
    assert (caught.value.function, caught.value.family) == (what, recorded.family)
    assert recorded.events == []


@pytest.mark.validation
@pytest.mark.parametrize(
    ("input", "error"),
    [
        (Input(kind="poem", prompt="x"), ValueError),
        (Input(kind="prompt"), ValueError),
        (Input(kind="prompt", prompt="a\0b"), ValueError),
        (Input(kind="prompt", prompt=3), TypeError),  # type: ignore[arg-type]
        (Input(kind="prompt", prompt="\ud800"), UnicodeEncodeError),
        (Input(kind="tokens", tokens=[]), ValueError),
        (Input(kind="tokens", tokens=[1, -1]), ValueError),
        (Input(kind="tokens", tokens=array.array("i", [-1])), ValueError),
        (Input(kind="tokens", tokens=[2**31]), ValueError),
        (Input(kind="tokens", tokens=["1"]), TypeError),  # type: ignore[list-item]
        (Input(kind="tokens", tokens=b"12345"), ValueError),
        (Input(kind="embed", embed=ROWS, n_tokens=5), ValueError),
        (Input(kind="embed", embed=ROWS, n_tokens=0), ValueError),
        (Input(kind="embed", embed=array.array("d", [1.0]), n_tokens=1), TypeError),
        (Input(kind="embed", embed=memoryview(ROWS)[::2], n_tokens=2), ValueError),
        (Input(kind="embed", embed=b"", n_tokens=1), ValueError),
        (Input(kind="multimodal", prompt="x"), ValueError),
    ],
)
def test_an_input_that_could_hurt_the_library_never_reaches_it(
    recorded_f5: Recorded, input: Input, error: type[Exception]
) -> None:
    recorded_f5.init()
    recorded_f5.lines()
    with pytest.raises(error):
        recorded_f5.runtime.run(input, Infer())
    assert recorded_f5.lines() == []
    assert recorded_f5.runtime.run(PROMPT, Infer()) == 0


def test_hidden_states_and_logits_come_as_bytes_with_their_shape(recorded: Recorded) -> None:
    recorded.init()
    data = array.array("f", range(6)).tobytes()
    recorded.runtime.run(PROMPT, Infer(mode="hidden"))
    assert (0, 0, 0, None, {"hidden": (data, 2, 3)}) in recorded.events
    if recorded.family != "F1":
        recorded.runtime.run(PROMPT, Infer(mode="logits"))
        assert (0, 0, 0, None, {"logits": (data, 1, 6)}) in recorded.events
    assert (
        sum(event[4] is not None and "perf" not in event[4] for event in recorded.events)
        == (recorded.family != "F1") + 1
    )


def test_a_batch_is_arrays_both_ways(recorded_f4: Recorded, recorded_f5: Recorded) -> None:
    for recorded in (recorded_f4, recorded_f5):
        recorded.init(n_batch=3)
        recorded.lines()
        recorded.runtime.run([Input(kind="prompt", prompt=text) for text in "xyz"], Infer())
        assert [line for line in recorded.lines() if line.startswith("prompt")] == ["prompt x", "prompt y", "prompt z"]
        assert [event[:4] for event in recorded.events[:3]] == [(1, 0, 0, b"a"), (1, 1, 10, b"a"), (1, 2, 20, b"a")]
        assert [event[2] for event in recorded.events[-3:]] == [-1, -1, -1]
        assert recorded.runtime.get_kv_cache_size() == [100, 101, 102]
        with pytest.raises(ValueError, match="n_batch 3"):
            recorded.runtime.run(PROMPT, Infer())


@pytest.mark.parametrize(("answers", "answer"), [((0, 2, None), "answer 2"), ((1, None, 0), "answer 1")])
def test_a_batch_answers_with_what_any_item_asked_for(
    recorded_f5: Recorded, answers: tuple[int | None, ...], answer: str
) -> None:
    def on_result(state: int, item: int, *rest: object) -> int | None:
        return answers[item] if state == 1 else None

    recorded_f5.runtime.init({"n_batch": 3}, on_result)
    recorded_f5.runtime.run([PROMPT, PROMPT, PROMPT], Infer())
    assert [line for line in recorded_f5.lines() if line.startswith("answer")] == [answer]


@pytest.mark.errors
def test_a_run_without_a_result_to_show_is_survived(recorded: Recorded) -> None:
    recorded.init("/null-result,bad-run")
    with pytest.raises(RkllmError) as caught:
        recorded.runtime.run(PROMPT, Infer())
    assert (caught.value.function, caught.value.status) == ("rkllm_run", 3)
    assert recorded.events == [(3, 0, -1, None, None)]
