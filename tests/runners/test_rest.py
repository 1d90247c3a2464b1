"""The halves of CLIP at rest, loaded as the service loads them."""

from __future__ import annotations

from pathlib import Path

from models.catalog import load_catalog
from runners.clip import ClipImageModel, ClipTextModel
from runners.contract import Embedding, ImageJob, TextJob
from runners.engine import EnginePlan, trim_idle_sessions
from runners.engine.openvino import OpenVinoSession
from runners.task import Loading
from runners.tasks import CLIP_IMAGE, CLIP_TEXT
from settings import Settings
from tools.harness.rendered import mixed_pages


def test_the_half_that_somebody_waits_for_stays_open_and_the_other_is_closed(tmp_path: Path) -> None:
    plan = EnginePlan("cpu", 2, engine="openvino", precision="fp32", compiled=tmp_path)
    using = Loading(load_catalog(), Settings(), plan)
    images, texts = CLIP_IMAGE.load("cn-clip-tiny", using), CLIP_TEXT.load("cn-clip-tiny", using)
    jobs = [ImageJob(mixed_pages()[0].data, "cn-clip-tiny")], [TextJob("发票", "cn-clip-tiny", None)]
    before = [*images.run(jobs[0]), *texts.run(jobs[1])]
    assert trim_idle_sessions(0) >= 2
    assert isinstance(images, ClipImageModel)
    assert isinstance(texts, ClipTextModel)
    for model, is_open in ((images, False), (texts, True)):
        assert isinstance(model._session, OpenVinoSession)
        assert (model._session._compiled is not None) == is_open
    after = [*images.run(jobs[0]), *texts.run(jobs[1])]
    for one, other in zip(before, after, strict=True):
        assert isinstance(one, Embedding)
        assert isinstance(other, Embedding)
        assert (one.vector == other.vector).all()
    images.close()
    texts.close()
