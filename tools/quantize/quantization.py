"""Quantization of a CLIP image graph to int8, weights and activations: NNCF with SmoothQuant, on the user's pictures.

Measured with CN-CLIP ViT-B-16 (random weights), CPU time a picture at batch 8 on AVX512-VNNI: bf16 97 ms, int8 62 ms,
at a cosine to fp32 of 0.9996 in the mean. Text is not quantized: a query is one text. Faces are left out: landmarks
move too far already in bf16. OCR is quantized once for everybody (``tools.quantize.ranges``).
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.digest import digest_of
from models.entry import ModelEntry, ModelKind
from models.resolve import resolve
from runners.clip.preprocessing import Preprocessing, read_preprocessing
from runners.engine import QUANTIZED, EnginePlan, open_session
from runners.engine.openvino import OpenVinoSession
from runners.engine.threads import available_cores
from settings import Settings
from tools.quantize.pictures import find_pictures, read_pictures

log = logging.getLogger(__name__)

_FEWEST = 16
"""Pictures: fewer do not show what values the activations take."""
_HELD_OUT = 0.2
"""Share of the pictures that is not calibrated on: the cosine is measured with them."""
LEAST_COSINE = 0.98
"""Mean below which the result is thrown away: neighbours in search would change."""


WEIGHTS, DESCRIPTION = "model.int8.bin", "model.int8.json"
_REFERENCE = EnginePlan("cpu", threads=available_cores(), engine="openvino", precision="fp32")


class QuantizationRefused(Exception):
    """A model cannot be quantized; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """An int8 twin and how it was made; stored beside it as ``model.int8.json``."""

    sha256: str
    """Of ``model.int8.bin``."""
    source_sha256: str
    """Of the graph that it was made of."""
    mean_cosine: float
    least_cosine: float
    """To fp32, over pictures that were not calibrated on."""
    calibrated_on: int
    measured_on: int
    nncf: str
    openvino: str


def quantize(entry: ModelEntry, folder: Path, settings: Settings, *, count: int = 300) -> tuple[Path, Quantized]:
    """Make the int8 twin of ``entry``'s image half beside its graph, from at most ``count`` pictures below ``folder``.

    Return the twin's path and what was measured. Raise ``QuantizationRefused``; ``ModelUnavailable`` if the model is
    not here; ``OSError``.
    """
    if entry.task is not ModelKind.CLIP:
        raise QuantizationRefused(
            f"{entry.name} is a model for {entry.task.value}; only CLIP's image half is quantized."
        )
    _require_packages()
    files = resolve(entry, settings.model_copy(update={"offline": True}), "visual")
    graph = files["visual/model.onnx"]
    preprocessing = read_preprocessing(files["visual/preprocess_cfg.json"], as_immich=entry.family != "cn-clip")
    pictures = find_pictures(folder)
    read = list(read_pictures(pictures, preprocessing, count))
    if len(read) < _FEWEST:
        raise QuantizationRefused(
            f"{folder} has {len(read)} pictures that can be read; at least {_FEWEST} are needed, and 300 are better."
        )
    held_out = round(len(read) * _HELD_OUT)
    batch = _batch(np.stack(read), graph, preprocessing)
    with tempfile.TemporaryDirectory(dir=graph.parent, prefix="quantize-") as temporary:
        work = Path(temporary)
        log.info("Calibrating on %d pictures; this takes minutes.", len(batch) - held_out)
        _write_int8(graph, [batch[row : row + 1] for row in range(len(batch) - held_out)], work / QUANTIZED)
        cosines = _cosines(graph, work / QUANTIZED, batch[-held_out:])
        if not cosines.mean() >= LEAST_COSINE:  # NaN, too
            raise QuantizationRefused(
                f"{entry.name} in int8 answers with a mean cosine of {cosines.mean():.4f} to fp32; {LEAST_COSINE} is "
                "due. Nothing was "
                "stored. More pictures, of more kinds, may help."
            )
        done = _described(graph, work / WEIGHTS, cosines, len(batch) - held_out)
        (work / DESCRIPTION).write_text(json.dumps(asdict(done), indent=1) + "\n", encoding="utf-8")
        for name in (WEIGHTS, DESCRIPTION, QUANTIZED):  # the graph last: with it the twin counts as there
            (work / name).replace(graph.with_name(name))
    return graph.with_name(QUANTIZED), done


def _write_int8(graph: Path, samples: list[NDArray[Any]], target: Path) -> None:
    import runners.engine.before_openvino  # noqa: F401

    # isort: split
    import nncf
    import openvino as ov

    nncf.set_log_level(logging.ERROR)
    quantized = nncf.quantize(
        ov.Core().read_model(str(graph)),
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER,  # SmoothQuant, and attention's sums left as they are
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(samples),
    )
    ov.save_model(quantized, str(target), compress_to_fp16=True)


def _batch(pixels: NDArray[np.uint8], graph: Path, preprocessing: Preprocessing) -> NDArray[Any]:
    """Return (n, h, w, 3) uint8 as the graph takes it: as it is, or normalised (n, 3, h, w)."""
    session = open_session(graph, _REFERENCE)
    dtype = session.inputs[0].dtype
    session.close()
    return pixels if dtype == np.uint8 else preprocessing.normalised(pixels).astype(dtype)


def _cosines(graph: Path, twin: Path, batch: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine of each row's vector in int8 to that in fp32, as the service computes both."""
    vectors = []
    for session in (
        open_session(graph, _REFERENCE),
        OpenVinoSession(twin, threads=_REFERENCE.threads, precision="int8"),
    ):
        name = session.inputs[0].name
        rows = [session.run({name: batch[row : row + 1]})[0].astype(np.float64) for row in range(len(batch))]
        session.close()
        vectors.append(np.concatenate(rows))
    one, other = vectors
    return np.asarray(np.sum(one * other, axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)))


def _described(graph: Path, weights: Path, cosines: NDArray[np.float64], calibrated_on: int) -> Quantized:
    return Quantized(
        sha256=str(digest_of(weights, "sha256")),
        source_sha256=str(digest_of(graph, "sha256")),
        mean_cosine=round(float(cosines.mean()), 6),
        least_cosine=round(float(cosines.min()), 6),
        calibrated_on=calibrated_on,
        measured_on=len(cosines),
        nncf=version("nncf"),
        openvino=version("openvino"),
    )


def _require_packages() -> None:
    if importlib.util.find_spec("nncf") is None:
        raise QuantizationRefused(
            f"Quantizing needs nncf, which serving does not. Install: {sys.executable} -m pip install nncf"
        )
