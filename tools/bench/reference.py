"""The peer of the benchmarks: Immich's machine-learning protocol served the plain way.

One process: Starlette under uvicorn, models called in a pool of one thread per core, one picture a call. Pictures are
decoded whole by Pillow. Models are ONNX Runtime in fp32 with its defaults (threads, memory arena), loaded by the first
request that needs them and kept. Faces are insightface's own SCRFD and ArcFace classes, all faces of a picture in one
call. OCR is rapidocr's own detector, on the picture shrunk to the resolution that is asked for, and its recogniser, six
lines a call, without the classifier of upside-down lines; rapidocr itself switches the arena off. Immich's own server
is built this way, of the same two packages. Nothing is slowed down to look worse, and nothing is tuned.

The weights are those that the service would use: the same settings (environment) name them and ``models`` finds them.

    python -m tools.bench.reference --port 3013 [--no-arena]

``--no-arena`` switches ONNX Runtime's arena off, as Immich's container does: less memory, a little slower.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn
from numpy.typing import NDArray
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from models.catalog import ModelEntry, ModelKind, load_catalog
from models.resolve import resolve
from settings import Settings

Pixels = NDArray[np.uint8]
"""(height, width, 3) RGB."""
Predict = Callable[[Any, Mapping[str, Any]], Any]
"""The input (``Pixels`` or a text) and the task's part of ``entries`` to what is answered under the task's name."""


class Reference:
    """All models, each loaded by the first request for it. Called from several threads."""

    def __init__(self, config: Settings, *, arena: bool) -> None:
        self._config, self._arena = config, arena
        self._catalog = load_catalog(config.model_catalog)
        self._loaded: dict[str, Predict] = {}
        self._loading = threading.Lock()

    def predict(self, task: str, given: Any, asked: Mapping[str, Any]) -> Any:
        """Answer one ``task``: visual, textual, facial-recognition or ocr."""
        with self._loading:
            if task not in self._loaded:
                load = {
                    "visual": self._clip_image,
                    "textual": self._clip_text,
                    "facial-recognition": self._faces,
                    "ocr": self._ocr,
                }[task]
                self._loaded[task] = load()
        return self._loaded[task](given, asked)

    def _entry(self, task: ModelKind, name: str) -> ModelEntry:
        return self._catalog.find(task, name)

    def _session(self, path: Path) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.enable_cpu_mem_arena = self._arena
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def _clip_image(self) -> Predict:
        files = resolve(self._entry(ModelKind.CLIP, self._config.clip_model), self._config, "visual")
        session = self._session(files["visual/model.onnx"])
        config = json.loads(files["visual/preprocess_cfg.json"].read_text())
        size = config["size"] if isinstance(config["size"], int) else config["size"][0]
        squash = self._entry(ModelKind.CLIP, self._config.clip_model).family == "cn-clip"
        mean, std = (np.array(config[name], np.float32) for name in ("mean", "std"))
        graph_input = session.get_inputs()[0]

        def predict(pixels: Pixels, asked: Mapping[str, Any]) -> str:
            image = Image.fromarray(pixels)
            resized = image.resize((size, size), Image.Resampling.BICUBIC) if squash else _centre(image, size)
            batch = np.asarray(resized)[None]
            if graph_input.type != "tensor(uint8)":
                batch = np.ascontiguousarray(((batch / np.float32(255) - mean) / std).transpose(0, 3, 1, 2), np.float32)
            return _text(_normalised(session.run(None, {graph_input.name: batch})[0][0]))

        return predict

    def _clip_text(self) -> Predict:
        from tokenizers import Tokenizer

        files = resolve(self._entry(ModelKind.CLIP, self._config.clip_model), self._config, "textual")
        session = self._session(files["textual/model.onnx"])
        length = json.loads(files["config.json"].read_text())["text_cfg"]["context_length"]
        padding = json.loads(files["textual/tokenizer_config.json"].read_text())["pad_token"]
        tokenizer = Tokenizer.from_file(str(files["textual/tokenizer.json"]))
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(length=length, pad_token=padding, pad_id=tokenizer.token_to_id(padding))
        graph_input = session.get_inputs()[0]
        dtype = np.int64 if graph_input.type == "tensor(int64)" else np.int32

        def predict(text: str, asked: Mapping[str, Any]) -> str:
            ids = np.array([tokenizer.encode(text).ids], dtype)
            return _text(_normalised(session.run(None, {graph_input.name: ids})[0][0]))

        return predict

    def _faces(self) -> Predict:
        from insightface.model_zoo.arcface_onnx import ArcFaceONNX
        from insightface.model_zoo.scrfd import SCRFD
        from insightface.utils import face_align

        files = resolve(self._entry(ModelKind.FACES, self._config.recognition_model), self._config)
        paths = [files["detection/model.onnx"], files["recognition/model.onnx"]]
        detector = SCRFD(str(paths[0]), self._session(paths[0]))
        recognizer = ArcFaceONNX(str(paths[1]), self._session(paths[1]))
        detector.prepare(ctx_id=0, input_size=(640, 640))

        def predict(pixels: Pixels, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
            threshold = asked["detection"].get("options", {}).get("minScore", 0.7)
            picture = np.ascontiguousarray(pixels[:, :, ::-1])  # insightface takes BGR
            boxes, landmarks = detector.detect(picture, det_thresh=threshold)
            if not len(boxes):
                return []
            vectors = recognizer.get_feat([face_align.norm_crop(picture, points) for points in landmarks])
            return [
                {
                    "boundingBox": dict(zip(("x1", "y1", "x2", "y2"), np.round(box[:4]).tolist(), strict=True)),
                    "embedding": _text(vector),
                    "score": float(box[4]),
                }
                for box, vector in zip(boxes, vectors, strict=True)
            ]

        return predict

    def _ocr(self) -> Predict:
        from rapidocr import RapidOCR

        files = resolve(self._entry(ModelKind.OCR, self._config.ocr_model), self._config)
        weights = {
            "Det.model_path": str(files["detection/model.onnx"]),
            "Rec.model_path": str(files["recognition/model.onnx"]),
        }
        engine = RapidOCR(params={**weights, "Global.use_vertical_padding": False, "Global.log_level": "error"})

        detect = (
            engine._load_det_model()
        )  # rapidocr alone would search the whole picture, at four times the cost of 736 pixels

        def predict(pixels: Pixels, asked: Mapping[str, Any]) -> dict[str, Any]:
            side = asked["detection"].get("options", {}).get("maxResolution", 736)
            least = asked["recognition"].get("options", {}).get("minScore", 0.8)
            scale = side / min(pixels.shape[:2])
            size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
            small = np.asarray(
                Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
            )  # as Immich's server does
            found = detect(np.ascontiguousarray(small[:, :, ::-1]))
            if found.boxes is None:
                return {"text": [], "box": [], "boxScore": [], "textScore": []}
            found.boxes = np.asarray(found.boxes, np.float32) / scale
            picture = np.ascontiguousarray(pixels[:, :, ::-1])
            read = engine.recognize_txt(engine.crop_text_regions(picture, found.boxes))
            kept = [
                at
                for at, (text, score) in enumerate(zip(read.txts, read.scores, strict=True))
                if text.strip() and score >= least
            ]
            corners = found.boxes[kept] / np.array(pixels.shape[1::-1], np.float32)
            return {
                "text": [read.txts[at] for at in kept],
                "box": corners.reshape(-1).tolist(),
                "boxScore": [float(found.scores[at]) for at in kept],
                "textScore": [float(read.scores[at]) for at in kept],
            }

        return predict


def _centre(image: Image.Image, size: int) -> Image.Image:
    """Resize the short side to ``size``, and cut out the middle of the long one."""
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _normalised(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    normalised: NDArray[np.float32] = vector / np.linalg.norm(vector)
    return normalised


def _text(vector: NDArray[np.float32]) -> str:
    return orjson.dumps(np.ascontiguousarray(vector, np.float32), option=orjson.OPT_SERIALIZE_NUMPY).decode()


class Api:
    """Immich's protocol over ``Reference``."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._pool = ThreadPoolExecutor(os.cpu_count())

    async def predict(self, request: Request) -> Response:
        async with request.form() as form:
            entries = json.loads(str(form["entries"]))
            image, text = form.get("image"), form.get("text")
            data = image if image is None or isinstance(image, str) else await image.read()
        answer = await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, entries, data, text)
        return Response(orjson.dumps(answer), media_type="application/json")

    def _answer(self, entries: Mapping[str, Any], data: Any, text: Any) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        given = text
        if data is not None:
            given = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            answer = {"imageHeight": given.shape[0], "imageWidth": given.shape[1]}
        for task, parts in entries.items():
            model = next(iter(parts)) if task == "clip" else task
            answer[task] = self._reference.predict(model, given, parts)
        return answer


async def _ping(request: Request) -> Response:
    return PlainTextResponse("pong")


def application(config: Settings, *, arena: bool = True) -> Starlette:
    """Return the peer as an ASGI application."""
    api = Api(Reference(config, arena=arena))
    pings = [Route(path, _ping) for path in ("/ping", "/readyz")]
    return Starlette(routes=[*pings, Route("/predict", api.predict, methods=["POST"])])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench.reference", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--port",
        type=int,
        default=int(os.environ.get("IMMICH_PORT", "3013")),
        help="on loopback (IMMICH_PORT, or 3013)",
    )
    parser.add_argument("--no-arena", action="store_true", help="without ONNX Runtime's memory arena")
    options = parser.parse_args()
    ort.set_default_logger_severity(3)  # w600k_mbf declares (1, 512) and warns at every batch
    uvicorn.run(
        application(Settings(), arena=not options.no_arena), host="127.0.0.1", port=options.port, log_level="warning"
    )


if __name__ == "__main__":
    main()
