"""Names of weights in Hugging Face's ChineseCLIPModel to those of cn_clip.

The two lay out the same numbers differently: projections are transposed, and q, k, v are three matrices there and one
here. Mapping after transformers' ``convert_chinese_clip_original_pytorch_to_hf.py``, the other way round.
"""

from __future__ import annotations

import re

from models.convert.tensor import ConcatenatedTensor, Tensor, Tensors, TransposedTensor

_RENAMED = (
    (re.compile(r"text_model\.(embeddings|encoder)\."), r"bert.\1."),
    (re.compile(r"vision_model\.pre_layr?norm\."), "visual.ln_pre."),  # "layrnorm" is how transformers spells it
    (re.compile(r"vision_model\.pre_layernorm\."), "visual.ln_pre."),
    (re.compile(r"vision_model\.post_layernorm\."), "visual.ln_post."),
    (re.compile(r"vision_model\.embeddings\.class_embedding$"), "visual.class_embedding"),
    (re.compile(r"vision_model\.embeddings\.patch_embedding\.weight$"), "visual.conv1.weight"),
    (re.compile(r"vision_model\.embeddings\.position_embedding\.weight$"), "visual.positional_embedding"),
    (
        re.compile(r"vision_model\.encoder\.layers\.(\d+)\.layer_norm([12])\."),
        r"visual.transformer.resblocks.\1.ln_\2.",
    ),
    (re.compile(r"vision_model\.encoder\.layers\.(\d+)\.mlp\.fc1\."), r"visual.transformer.resblocks.\1.mlp.c_fc."),
    (re.compile(r"vision_model\.encoder\.layers\.(\d+)\.mlp\.fc2\."), r"visual.transformer.resblocks.\1.mlp.c_proj."),
    (
        re.compile(r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.out_proj\."),
        r"visual.transformer.resblocks.\1.attn.out_proj.",
    ),
)
_TRANSPOSED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}
_ATTENTION = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)")
_PART_OF_ATTENTION = re.compile(r"vision_model\.encoder\.layers\.\d+\.self_attn\.[qkv]_proj\.(weight|bias)")
_NOT_USED = re.compile(r"(text_model|vision_model)\.embeddings\.(position_ids|token_type_ids)|text_model\.pooler\..*")


def is_hugging_face(names: Tensors) -> bool:
    """Return whether these are names of ChineseCLIPModel."""
    return any(name.startswith(("text_model.", "vision_model.")) for name in names)


def to_cn_clip(tensors: Tensors) -> dict[str, Tensor]:
    """Return the same tensors under cn_clip's names.

    What is unknown keeps its name, and what is incomplete is left out: either will be found not to fit.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _NOT_USED.fullmatch(name):
            continue
        attention = _ATTENTION.fullmatch(name)
        if attention is not None:
            layer, kind = attention.groups()
            parts = [tensors.get(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
            alike = [part for part in parts if part is not None and part.shape and part.shape == tensor.shape]
            if len(alike) == 3:
                renamed[f"visual.transformer.resblocks.{layer}.attn.in_proj_{kind}"] = ConcatenatedTensor(alike)
        elif name in _TRANSPOSED:
            renamed[_TRANSPOSED[name]] = TransposedTensor(tensor)
        elif not _PART_OF_ATTENTION.fullmatch(name):
            renamed[_renamed(name)] = tensor
    return renamed


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        if pattern.match(name):
            return pattern.sub(replacement, name)
    return name
