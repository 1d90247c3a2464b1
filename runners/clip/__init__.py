"""CLIP models: pictures and texts to vectors of one space. CN-CLIP's and Immich's, from ONNX folders of one layout.

The two families differ in preprocessing and tokens only:

- ``cn-clip``: a picture is squashed in the file's own colour mode, as torchvision does for cn_clip, and normalised by
  the graph (uint8 NHWC). A text goes to its tokenizer as it is: BERT word pieces, 52 tokens.
- ``immich-clip``: a picture is converted to RGB, then resized and cropped as by Immich's own server and normalised
  here (float NCHW). A text's whitespace is collapsed; some models want it canonicalised, NLLB's want a language token
  in front.

Input types and names are read from the graph, so a graph of either family may have the other's kind of input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from runners.clip.image import ClipImageModel
from runners.clip.preprocessing import read_preprocessing
from runners.clip.text import ClipTextModel
from runners.clip.tokenizer import read_tokenizer
from runners.engine import Session

__all__ = ["ClipImageModel", "ClipTextModel", "load_clip_image", "load_clip_text"]


def load_clip_image(
    entry_family: str, files: Mapping[str, Path], open_session: Callable[[Path], Session], *, max_pixels: int
) -> ClipImageModel:
    """Load the image half of a CLIP model.

    ``files``: ``visual/model.onnx`` and ``visual/preprocess_cfg.json``. ``max_pixels``: larger pictures are refused.
    Raises ``ModelUnavailable`` where a file is damaged or the files do not fit together.
    """
    preprocessing = read_preprocessing(files["visual/preprocess_cfg.json"], as_immich=entry_family != "cn-clip")
    return ClipImageModel(open_session(files["visual/model.onnx"]), preprocessing, max_pixels=max_pixels)


def load_clip_text(
    model_name: str, entry_family: str, files: Mapping[str, Path], open_session: Callable[[Path], Session]
) -> ClipTextModel:
    """Load the text half of a CLIP model.

    ``files``: ``textual/model.onnx``, ``textual/tokenizer.json``, ``textual/tokenizer_config.json``, ``config.json``.
    Raises ``ModelUnavailable`` where a file is damaged or the files do not fit together.
    """
    tokenizer = read_tokenizer(model_name, entry_family, files)
    # CN-CLIP masks its padding and takes the vector of the first token.
    return ClipTextModel(
        open_session(files["textual/model.onnx"]), tokenizer, ignores_padding=entry_family == "cn-clip"
    )
