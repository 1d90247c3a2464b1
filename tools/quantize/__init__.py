"""int8 twins of CLIP image graphs, calibrated on pictures of the user's: needs nncf, which serving does not."""

from tools.quantize.quantization import QuantizationRefused, Quantized, quantize

__all__ = ["QuantizationRefused", "Quantized", "quantize"]
