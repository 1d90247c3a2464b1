"""CN-CLIP checkpoints to ONNX. Needs numpy, onnx and onnxruntime; of cn-clip its vocabulary, and nothing of PyTorch."""

from models.convert.conversion import Converted, Report, convert, convert_and_store
from models.convert.refusal import ConversionRefused
from models.convert.vocabulary import installed_vocabulary

__all__ = [
    "ConversionRefused",
    "Converted",
    "Report",
    "convert",
    "convert_and_store",
    "installed_vocabulary",
]
