"""Preprocessing of pictures for a CLIP image graph, by the model's ``preprocess_cfg.json``.

Field names and meanings are those of open_clip's ``PreprocessCfg`` (open_clip/transform.py). Immich's models are the
exception: Immich's own server (2.5 to 3.1) reads ``size``, ``mean`` and ``std`` only. It always resizes the short side
and crops the middle, bicubically, even where the file says ``squash`` (SigLIP). Vectors in Immich's database were made
that way, so ours are too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runners.clip.files import damaged, read_json
from runners.contract import Float32
from runners.pictures import decode as pictures

ResizeMode = Literal["shortest", "longest", "squash"]

# Modes that Pillow resizes, and converts to RGB without loss of range. Others are converted before they are resized.
_RESIZABLE_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"})
_RESAMPLING = {method.name.lower(): method for method in Image.Resampling}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Size, resizing and normalisation of one model's input."""

    width: int
    """Pixels."""
    height: int
    mean: tuple[float, float, float]
    """Of R, G, B in the range 0 to 1."""
    std: tuple[float, float, float]
    resampling: Image.Resampling
    resize_mode: ResizeMode
    """``shortest``: short side to size, centre crop. ``longest``: long side to size, centred on ``fill_color``.
    ``squash``: both to size.
    """
    fill_color: tuple[int, int, int]
    convert_first: bool
    """Convert to RGB before resizing (Immich), or resize in the file's own mode as torchvision does for cn_clip."""

    @property
    def decode_at_least(self) -> int:
        """Return the short side in pixels of a JPEG decoded at a smaller scale: 1.5 times what the model takes.

        Over 25 pictures and a random ViT-B-16, the least cosine (about the mean vector) to the full decode was 0.99977
        at 1x, 0.99993 at 1.5x and 0.99996 at 2x. A scaled decode that is barely larger than the input is what loses
        detail; 1.5x excludes it. A preview of 1440 px takes as long as at 1x (6 ms, full decode 24 ms); 2x takes 10 ms.
        """
        return max(self.width, self.height) * 3 // 2

    def pixels(self, data: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
        """Decode and resize an encoded picture to (height, width, 3) uint8 RGB.

        Raises ``ServiceError``: UNREADABLE_PICTURE, PICTURE_TOO_LARGE.
        """
        image = pictures.decode_image(
            data,
            max_pixels=max_pixels,
            at_least=self.decode_at_least,
            keep_modes=() if self.convert_first else _RESIZABLE_MODES,
        )
        return np.asarray(self._resize(image).convert("RGB"), dtype=np.uint8)

    def normalised(self, batch: NDArray[np.uint8]) -> Float32:
        """Convert (n, h, w, 3) uint8 to (n, 3, h, w) float32: ``(x / 255 - mean) / std``."""
        scale = 1 / (255 * np.asarray(self.std, np.float32))
        offset = np.asarray(self.mean, np.float32) / np.asarray(self.std, np.float32)
        planes = np.empty((len(batch), 3, *batch.shape[1:3]), np.float32)
        for channel in range(3):  # one at a time: six times as fast as all at once and then transposed
            plane = planes[:, channel]
            np.multiply(batch[..., channel], scale[channel], out=plane)
            plane -= offset[channel]
        return planes

    def _resize(self, image: Image.Image) -> Image.Image:
        if self.resize_mode == "squash":
            return image.resize((self.width, self.height), self.resampling)
        if self.resize_mode == "shortest":
            return self._cover(image)
        return self._contain(image)

    def _cover(self, image: Image.Image) -> Image.Image:
        """Resize ``image`` to cover the model's rectangle, and crop the middle.

        Only the middle is computed (``box``): a 1 x 100,000,000 picture would otherwise become one of 22 gigapixels.
        """
        width, height = image.size
        if width * self.height <= height * self.width:
            whole = (self.width, height * self.width // width)
        else:
            whole = (width * self.height // height, self.height)
        left, top = (whole[0] - self.width) // 2, (whole[1] - self.height) // 2
        x, y = width / whole[0], height / whole[1]
        box = (left * x, top * y, min((left + self.width) * x, width), min((top + self.height) * y, height))
        return image.resize((self.width, self.height), self.resampling, box=box)

    def _contain(self, image: Image.Image) -> Image.Image:
        """Resize ``image`` to fit into the model's rectangle, and centre it on ``fill_color``."""
        ratio = max(image.width / self.width, image.height / self.height)
        size = max(1, round(image.width / ratio)), max(1, round(image.height / ratio))
        ground = Image.new("RGB", (self.width, self.height), self.fill_color)
        ground.paste(
            image.resize(size, self.resampling).convert("RGB"),
            ((self.width - size[0]) // 2, (self.height - size[1]) // 2),
        )
        return ground


def read_preprocessing(path: Path, *, as_immich: bool) -> Preprocessing:
    """Read a ``preprocess_cfg.json``.

    ``as_immich``: use it as Immich's own server does: convert to RGB, then cover a square of the first size in
    ``size`` bicubically and crop, whatever ``resize_mode`` and ``interpolation`` say. Otherwise resize as the file
    says, in the picture's own colour mode.

    Raises ``ModelUnavailable`` where the file is damaged or asks for what is not supported.
    """
    config = read_json(path)
    try:
        height, width = _pair(config["size"])
        mode = config.get("resize_mode", "shortest")
        if mode not in get_args(ResizeMode):
            raise ValueError(f"resize_mode {mode!r} is none of {', '.join(get_args(ResizeMode))}")
        if config.get("mode", "RGB") != "RGB":
            raise ValueError(f"mode {config['mode']!r} is not RGB")
        resampling = _RESAMPLING[config.get("interpolation", "bicubic").lower()]
        if as_immich:
            width, mode, resampling = height, "shortest", Image.Resampling.BICUBIC
        fill = config.get("fill_color", 0)
        return Preprocessing(
            width=width,
            height=height,
            mean=_triple(config["mean"]),
            std=_triple(config["std"]),
            resampling=resampling,
            resize_mode=cast(ResizeMode, mode),
            fill_color=(fill, fill, fill) if isinstance(fill, int) else tuple(int(part) for part in fill),  # type: ignore[arg-type]
            convert_first=as_immich,
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error


def _pair(size: Any) -> tuple[int, int]:
    """Return height and width of ``size``: an integer, [side] or [height, width]."""
    sides = [size] if isinstance(size, int) else [int(side) for side in size]
    if not 1 <= len(sides) <= 2 or min(sides) < 1:
        raise ValueError(f"size {size!r} is neither a side nor [height, width]")
    return sides[0], sides[-1]


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
