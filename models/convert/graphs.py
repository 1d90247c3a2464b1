"""The two halves of a CN-CLIP as ONNX graphs that take what a client has (uint8 pixels, token ids) and answer with unit vectors."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

from models.convert.configuration import MEAN, STD
from models.convert.tokenizer import CONTEXT_LENGTH

Half = Literal["visual", "textual"]
INPUTS: dict[Half, str] = {"visual": "image", "textual": "text"}
_OPSET = 17


def half_of(model: Any, half: Half) -> Any:
    """One half as a ``torch.nn.Module`` of its own.

    ``visual``: uint8 (n, s, s, 3) RGB to float32 (n, d). ``textual``: int64 token ids (n, up to 52), 0 for padding, to float32 (n, d). Rows
    have L2 norm 1.
    """
    import torch

    class Visual(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.visual = model.visual
            # cn_clip divides by 255 first (ToTensor), then normalises.
            self.register_buffer("mean", torch.tensor(MEAN) * 255, persistent=False)
            self.register_buffer("std", torch.tensor(STD) * 255, persistent=False)

        def forward(self, image: Any) -> Any:
            features = self.visual(((image.float() - self.mean) / self.std).permute(0, 3, 1, 2))
            return features / features.norm(dim=-1, keepdim=True)

    class Textual(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.bert, self.text_projection = model.bert, model.text_projection

        def forward(self, text: Any) -> Any:
            # As CLIP.encode_text; the padding's id is 0 in CN-CLIP's vocabulary.
            features = self.bert(text, attention_mask=text.ne(0).float())[0][:, 0, :] @ self.text_projection
            return features / features.norm(dim=-1, keepdim=True)

    return (Visual() if half == "visual" else Textual()).eval()


def export_half(model: Any, half: Half, image_size: int, path: Path) -> None:
    """Write one half to ``path``: fp32, axes of batch and tokens free. Above 2 GB torch puts weights into files beside it.

    Raises ``OSError``.
    """
    import torch

    name = INPUTS[half]
    axes = {0: "batch"} if half == "visual" else {0: "batch", 1: "tokens"}
    if half == "visual":
        example = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    else:
        example = torch.ones(2, CONTEXT_LENGTH, dtype=torch.int64)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # this exporter, which needs no onnxscript, says on every call that it is the old one
        torch.onnx.export(
            half_of(model, half), (example,), str(path), dynamo=False, opset_version=_OPSET,
            input_names=[name], output_names=["embedding"], dynamic_axes={name: axes, "embedding": {0: "batch"}},
        )  # fmt: skip
