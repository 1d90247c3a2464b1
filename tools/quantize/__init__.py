"""int8 twins of CLIP image graphs, calibrated on the user's pictures. Needs nncf, which serving does not."""

from tools.quantize.quantization import QuantizationRefused, Quantized, quantize

__all__ = ["QuantizationRefused", "Quantized", "quantize"]
