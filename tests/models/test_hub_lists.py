"""A hub's list of files is a stranger's: it is read within bounds, and its sizes are not believed blindly."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from errors import ModelUnavailable
from models.catalog import ModelEntry
from models.hub import list_modelscope, list_repository
from models.manifest import Manifest
from models.resolve import resolve
from models.transfer import TransferFailed
from tests.models.conftest import QUICK
from tests.models.small_clip import (
    FILE,
    HUGGINGFACE,
    HUGGINGFACE_FILE,
    MODELSCOPE,
    MODELSCOPE_FILE,
    FakeConversion,
    MakeSettings,
    entry,
    made_of_words,
    on_both_hubs,
)
from tools.harness.fake_hub import Fault, Web

__all__ = ["entry", "made_of_words"]

HUGGINGFACE_LIST = f"/api/models/{HUGGINGFACE}/revision/main"
MODELSCOPE_LIST = f"/ms/api/v1/models/{MODELSCOPE}/repo/files"
HUBS: list[tuple[str, Callable[..., Manifest]]] = [
    (HUGGINGFACE_LIST, lambda web, limits=QUICK: list_repository(web.url, HUGGINGFACE, limits=limits)),
    (MODELSCOPE_LIST, lambda web, limits=QUICK: list_modelscope(f"{web.url}/ms", MODELSCOPE, limits=limits)),
]
DATA = b"checkpoint" * 1000


@pytest.mark.parametrize(("path", "ask"), HUBS)
def test_a_list_without_end_is_given_up_at_a_bound(web: Web, path: str, ask: Callable[..., Manifest]) -> None:
    on_both_hubs(web, DATA)
    web.faults[path] = [Fault(endless=b" " * 2**16)]
    with pytest.raises(TransferFailed, match=r"answered with more than 4,194,304 bytes"):
        ask(web)


@pytest.mark.parametrize(("path", "ask"), HUBS)
def test_a_list_that_unpacks_to_gigabytes_is_given_up_at_the_same_bound(
    web: Web, path: str, ask: Callable[..., Manifest]
) -> None:
    on_both_hubs(web, DATA)
    web.faults[path] = [Fault(body=gzip.compress(bytes(100_000_000)), headers={"Content-Encoding": "gzip"})]
    tracemalloc.start()
    try:
        with pytest.raises(TransferFailed, match=r"answered with more than 4,194,304 bytes"):
            ask(web)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("path", "ask"), HUBS)
def test_a_list_that_is_packed_though_nobody_asked_is_read(web: Web, path: str, ask: Callable[..., Manifest]) -> None:
    on_both_hubs(web, DATA)
    plain = ask(web)
    web.faults[path] = [Fault(body=gzip.compress(bytes(web.files[path])), headers={"Content-Encoding": "gzip"})]
    assert ask(web) == plain
    assert plain.files[FILE][1] == len(DATA)


@pytest.mark.parametrize(("encoding", "complaint"), [("br", "in the encoding 'br'"), ("gzip", "damaged gzip")])
@pytest.mark.parametrize(("path", "ask"), HUBS)
def test_a_list_in_another_form_is_refused(
    web: Web, path: str, ask: Callable[..., Manifest], encoding: str, complaint: str
) -> None:
    on_both_hubs(web, DATA)
    web.faults[path] = [Fault(body=b"not packed", headers={"Content-Encoding": encoding})]
    with pytest.raises(TransferFailed, match=complaint):
        ask(web)


def test_what_a_list_says_is_not_quoted_whole(web: Web, make_settings: MakeSettings, entry: ModelEntry) -> None:
    settings = make_settings(**on_both_hubs(web, DATA))
    document = json.loads(bytes(web.files[HUGGINGFACE_LIST]))
    web.files[HUGGINGFACE_LIST] = json.dumps({**document, "sha": "/" * 3_000_000}).encode()
    web.files[MODELSCOPE_LIST] = json.dumps({"Data": "x" * 3_000_000}).encode()
    with pytest.raises(ModelUnavailable, match="is no commit") as caught:
        resolve(entry, settings, limits=QUICK)
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(("path", "ask"), HUBS)
def test_a_list_that_drips_is_given_up_in_time(web: Web, path: str, ask: Callable[..., Manifest]) -> None:
    on_both_hubs(web, DATA)
    web.faults[path] = [Fault(body=b" " * 100_000)]
    web.rate = 1000
    with pytest.raises(TransferFailed, match=r"did not end its answer within 0\.3 s"):
        ask(web, replace(QUICK, body=0.3))


def _say_size(web: Web, size: object) -> None:
    """Have both hubs list the checkpoint with this ``size``."""
    hugging_face = json.loads(bytes(web.files[HUGGINGFACE_LIST]))
    hugging_face["siblings"][0]["lfs"]["size"] = size
    web.files[HUGGINGFACE_LIST] = json.dumps(hugging_face).encode()
    modelscope = json.loads(bytes(web.files[MODELSCOPE_LIST]))
    modelscope["Data"]["Files"][-1]["Size"] = size
    web.files[MODELSCOPE_LIST] = json.dumps(modelscope).encode()


@pytest.mark.parametrize("size", [0, -5, 1, 10**11, 10**30, "x", None, 1.5e300])
def test_a_wrong_size_is_the_hubs_fault_and_the_other_hub_is_asked(
    web: Web, make_settings: MakeSettings, made_of_words: FakeConversion, entry: ModelEntry, size: object
) -> None:
    settings = make_settings(**on_both_hubs(web, DATA), model_hub="huggingface")
    right = web.files[MODELSCOPE_LIST]
    _say_size(web, size)
    with pytest.raises(ModelUnavailable) as caught:
        resolve(entry, settings, limits=QUICK)
    if size != 10**11:  # a file of 100 GB there may be
        assert f"{web.url}{HUGGINGFACE_FILE}: " in str(caught.value)
        assert f"{web.url}{MODELSCOPE_FILE}: " in str(caught.value)
        assert "this machine" not in str(caught.value)
    assert "the disk" not in str(caught.value).partition("What to do")[0].replace("the disk of", "")
    web.files[MODELSCOPE_LIST] = right
    resolve(entry, settings, limits=QUICK)
    assert len(made_of_words.digests) == 1


def test_an_answer_that_nothing_is_there_is_the_hubs_fault_and_the_other_hub_is_asked(
    web: Web, make_settings: MakeSettings, made_of_words: FakeConversion, entry: ModelEntry
) -> None:
    settings = make_settings(**on_both_hubs(web, DATA), model_hub="huggingface")
    web.faults[HUGGINGFACE_FILE] = [Fault(status=416, headers={"Content-Range": "bytes */0"})] * 9
    resolve(entry, settings, limits=QUICK)
    assert web.gets(MODELSCOPE_FILE) == [None]
    assert len(made_of_words.digests) == 1
