"""CN-CLIP checkpoints to ONNX, once: needs torch, onnx and cn-clip, which serving does not."""

from models.convert.conversion import Converted, convert
from models.convert.refusal import ConversionRefused

__all__ = ["ConversionRefused", "Converted", "convert"]
