"""Host names that no host has, in a redirect or a setting, are refused in a sentence, and another hub is asked."""

from __future__ import annotations

import pytest

from errors import ModelUnavailable
from models.catalog import ModelEntry
from models.resolve import resolve
from tests.models.conftest import QUICK
from tests.models.small_clip import (
    HUGGINGFACE,
    HUGGINGFACE_FILE,
    MODELSCOPE_FILE,
    FakeConversion,
    MakeSettings,
    entry,
    made_of_words,
    on_both_hubs,
)
from tools.harness.fake_hub import Fault, Web

__all__ = ["entry", "made_of_words"]

LIST = f"/api/models/{HUGGINGFACE}/revision/main"


@pytest.mark.parametrize("hub", ["huggingface", "auto"])
@pytest.mark.parametrize("asked", [LIST, HUGGINGFACE_FILE])
@pytest.mark.parametrize("host", ["a..b", "a" * 64, "xn--"])
def test_a_redirect_to_a_name_that_no_host_has_is_followed_by_the_other_hub(
    web: Web,
    make_settings: MakeSettings,
    entry: ModelEntry,
    made_of_words: FakeConversion,
    host: str,
    asked: str,
    hub: str,
) -> None:
    settings = make_settings(**on_both_hubs(web, b"checkpoint" * 100), model_hub=hub)
    web.faults[asked] = [Fault(status=302, headers={"Location": f"http://{host}/x"}) for _ in range(9)]
    resolve(entry, settings, limits=QUICK)
    assert web.gets(MODELSCOPE_FILE)[-1] is None


def test_both_hubs_that_lead_nowhere_are_named(web: Web, make_settings: MakeSettings, entry: ModelEntry) -> None:
    settings = make_settings(**on_both_hubs(web, b"checkpoint" * 100))
    for path in (HUGGINGFACE_FILE, MODELSCOPE_FILE):
        web.faults[path] = [Fault(status=302, headers={"Location": "http://a..b/x"}) for _ in range(9)]
    with pytest.raises(ModelUnavailable) as caught:
        resolve(entry, settings, limits=QUICK)
    assert (
        str(caught.value)
        .partition("Looked at: ")[2]
        .count("the host of it, or of where it leads, has a name that no host has")
        == 2
    )
