"""Augmentation: pictures of one drawing style varied towards others, in batches, in torch.

They are moved, recoloured, outlined, or reduced to lines.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def augment(pixels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Turn (n, 4, s, s) uint8 RGBA into (n, 3, size, size) float32 RGB, 0 to 1, each picture changed in its own way."""
    images = pixels.float() / 255
    images = torch.cat([images[:, :3] * images[:, 3:], images[:, 3:]], 1)  # premultiplied, so that edges stay clean
    images = _moved(images, size, generator)
    colour, alpha = images[:, :3], images[:, 3:].clamp(0, 1)
    colour = _recoloured(colour, alpha, generator)
    alpha = _outlined(alpha, generator)
    ground = _grounds(len(pixels), generator)
    flat = colour + ground * (1 - alpha)
    flat = _line_drawings(flat, generator)
    noise = torch.randn(flat.shape, generator=generator) * 0.05 * _chance(len(flat), 0.15, generator)
    return (flat + noise).clamp(0, 1)


def _chance(count: int, probability: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(count, 1, 1, 1, generator=generator) < probability).float()


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _moved(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Turn by up to 15 degrees, scale by 0.65 to 1.1 and shift a little. Empty beyond the border."""
    count = len(images)
    angle = _uniform(count, -0.26, 0.26, generator)
    across = _uniform(count, 0.91, 1.5, generator)
    down = across * _uniform(count, 0.88, 1.14, generator)
    shear = _uniform(count, -0.12, 0.12, generator)
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0], matrix[:, 0, 1] = across * angle.cos(), -down * angle.sin() + shear
    matrix[:, 1, 0], matrix[:, 1, 1] = across * angle.sin(), down * angle.cos()
    matrix[:, :, 2] = _uniform(2 * count, -0.12, 0.12, generator).view(count, 2)
    grid = functional.affine_grid(matrix, [count, images.shape[1], size, size], align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def _recoloured(colour: Tensor, alpha: Tensor, generator: torch.Generator) -> Tensor:
    """Change hue, saturation and lightness; a tenth of the pictures become grey, a fifth get few flat colours."""
    count = len(colour)
    grey = torch.full((3, 3), 1 / 3)
    saturation = _uniform(count, 0.4, 1.5, generator).view(-1, 1, 1) * (1 - _chance(count, 0.12, generator)[:, 0])
    matrix = torch.randn(count, 3, 3, generator=generator) * 0.1 + torch.eye(3)
    matrix = matrix @ (grey + saturation * (torch.eye(3) - grey))
    changed = torch.einsum("nij,njhw->nihw", matrix, colour)
    gain = _uniform(count, 0.75, 1.3, generator).view(-1, 1, 1, 1)
    lift = _uniform(count, -0.1, 0.25, generator).view(-1, 1, 1, 1)
    changed = torch.minimum((changed * gain + lift * alpha).clamp(min=0), alpha)
    flat = torch.minimum((changed * 4).round() / 4, alpha)
    return torch.lerp(changed, flat, _chance(count, 0.2, generator))


def _outlined(alpha: Tensor, generator: torch.Generator) -> Tensor:
    """Grow alpha by 1 to 2 pixels for three tenths of the pictures.

    What is grown has no colour yet: a black line around the shape.
    """
    chosen = _chance(len(alpha), 0.3, generator)
    wide = _chance(len(alpha), 0.3, generator)
    thin_ring = functional.max_pool2d(alpha, 3, 1, 1)
    ring = torch.lerp(thin_ring, functional.max_pool2d(thin_ring, 3, 1, 1), wide)
    return torch.lerp(alpha, ring, chosen)


def _grounds(count: int, generator: torch.Generator) -> Tensor:
    """Return backgrounds: white for seven in ten, else any colour, mostly a light one."""
    colours = torch.rand(count, 3, 1, 1, generator=generator) ** 0.5
    return torch.lerp(colours, torch.ones(1), _chance(count, 0.7, generator))


def _line_drawings(flat: Tensor, generator: torch.Generator) -> Tensor:
    """Give a quarter of the pictures black lines where colours meet, with the colours paled or gone."""
    chosen = torch.rand(len(flat), generator=generator) < 0.25
    some = flat[chosen]
    lines = (functional.max_pool2d(some, 3, 1, 1) + functional.max_pool2d(-some, 3, 1, 1)).amax(1, keepdim=True)
    lines = ((lines - 0.12) * 4).clamp(0, 1)
    pale = _chance(len(some), 0.5, generator) * _uniform(len(some), 0.3, 1.0, generator).view(-1, 1, 1, 1)
    pale = torch.maximum(pale, _chance(len(some), 0.35, generator))
    drawn = flat.clone()
    drawn[chosen] = torch.lerp(some, torch.ones(1), pale) * (1 - lines)
    return drawn
