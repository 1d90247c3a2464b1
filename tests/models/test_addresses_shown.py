"""What an address holds beside host and path never appears in an error, nor in the log."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import ModelUnavailable
from models.catalog import ModelKind, load_catalog
from models.digest import Digest
from models.download import RemoteFile, download
from models.resolve import resolve
from models.transfer import TransferFailed
from settings import Settings
from settings.addresses import shown_url
from tests.models.conftest import QUICK
from tools.harness.fake_hub import Fault, Web, fake_hub

MakeSettings = Callable[..., Settings]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hub.example/a/b", "https://hub.example/a/b"),
        ("https://me:pass@hub.example:8443/a", "https://hub.example:8443/a"),
        ("https://me:p/ss@hub.example/a", "https://hub.example/a"),
        ("https://hub.example/a?token=pass#x", "https://hub.example/a"),
        ("http://[::/m.onnx", "the address"),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@given(
    st.text(min_size=1, max_size=20),
    st.sampled_from(["https://me:{}@hub/x", "https://hub/x?token={}", "https://hub/x#{}"]),
)
def test_no_secret_is_shown_wherever_it_stands(secret: str, form: str) -> None:
    marked = f"SEC{secret}RET"
    assert marked not in shown_url(form.format(marked))


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=404), Fault(body=b"<html>")])
@pytest.mark.parametrize("name", ["ViT-B-32__openai", "buffalo_l"])
def test_credentials_of_the_mirror_are_sent_and_appear_nowhere(
    web: Web, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture, fault: Fault, name: str
) -> None:
    caplog.set_level(logging.DEBUG)
    task = ModelKind.FACES if name == "buffalo_l" else ModelKind.CLIP
    endpoint = web.url.replace("://", "://me:SECRET@")
    for path in (
        f"/api/models/immich-app/{name}/revision/main",
        f"/immich-app/{name}/resolve/main/detection/model.onnx",
    ):
        web.faults[path] = [fault] * 9
    with pytest.raises(ModelUnavailable) as caught:
        resolve(load_catalog().find(task, name), make_settings(hf_endpoint=endpoint), limits=QUICK)
    assert f"{web.url}/immich-app/{name}" in str(caught.value)
    assert "SECRET" not in str(caught.value) + caplog.text
    assert web.authorizations == {"Basic " + base64.b64encode(b"me:SECRET").decode()}


def test_tokens_in_the_query_of_an_address_appear_nowhere(
    web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "models")
    remote = RemoteFile(web.url + "/m.onnx?token=SECRET", Digest("sha256", "0" * 64), None)
    with pytest.raises(TransferFailed) as caught:
        download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
    assert "SECRET" not in str(caught.value) + caplog.text
    with pytest.raises(TransferFailed, match="no valid address") as caught:
        download(
            RemoteFile("http://me:SECRET@host:port/x", remote.digest, None),
            tmp_path / "m.onnx",
            title="t",
            limits=QUICK,
        )
    assert "SECRET" not in str(caught.value)


def test_credentials_of_the_mirror_do_not_follow_a_redirect_to_another_host(web: Web, tmp_path: Path) -> None:
    with fake_hub() as other:
        other.files["/stored"] = b"weights"
        web.faults["/m.onnx"] = [Fault(status=302, headers={"Location": f"{other.url}/stored?signature=SECRET"})]
        remote = RemoteFile(
            web.url.replace("://", "://me:SECRET@") + "/m.onnx",
            Digest("sha256", hashlib.sha256(b"weights").hexdigest()),
            7,
        )
        download(remote, tmp_path / "m.onnx", title="t", limits=QUICK)
        assert (tmp_path / "m.onnx").read_bytes() == b"weights"
        assert other.authorizations == set()
        assert len(web.authorizations) == 1
