"""Tensors through the Python client to a real rkvisord and back."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterator
from typing import Any

import pytest

from harness.api import FAMILIES, WIDTH, model
from harness.rkvisord import Rkvisord
from rkvisor.client import AsyncClient, Client, Tensor

pytestmark = pytest.mark.api


@pytest.fixture(scope="module", params=FAMILIES)
def server(request: pytest.FixtureRequest) -> Iterator[Rkvisord]:
    with Rkvisord(model("demo", request.param, "workers = 1")) as running:
        yield running


def rows(value: float) -> memoryview[Any]:
    return memoryview(array("f", [value] * 2 * WIDTH)).cast("B").cast("f", (2, WIDTH))


def test_embeddings_go_out_and_hidden_states_come_back(server: Rkvisord) -> None:
    with Client(server.endpoint) as client:
        found = client.run(model="demo", embed=rows(0.5), mode="hidden").hidden_states
        listed = client.run(model="demo", embed=rows(0.5), mode="hidden", tensor_format="list").hidden_states
        other = client.run(model="demo", embed=rows(0.25), mode="hidden").hidden_states
    assert isinstance(found, Tensor)
    assert isinstance(listed, Tensor)
    assert isinstance(other, Tensor)
    assert found.view.shape == (2, WIDTH)
    assert found.view.tolist() == listed.view.tolist() != other.view.tolist()


def test_a_stream_takes_a_tensor_and_the_asyncio_client_as_well(server: Rkvisord) -> None:
    image = {"prompt": "see <image>", "image": {"embed": rows(0.5), "n_image_tokens": 2}}
    with Client(server.endpoint) as client:
        stream = client.stream(model="demo", multimodal=image)
        text = "".join(token.text for token in stream)

    async def ask() -> str:
        async with AsyncClient(server.endpoint) as client:
            return (await client.run(model="demo", multimodal=image)).text

    assert asyncio.run(ask()) == text == stream.result.text != ""
