"""Shapes that belong to no CN-CLIP are refused in a sentence before anything is read."""

from __future__ import annotations

import pytest

from models.convert.architecture import Architecture, Bert, Misfit, ResNet, read_architecture

TEXT = Bert(100, 512, 64, 64, 1, 1)


def test_a_resnet_is_read_off_its_shapes() -> None:
    architecture = Architecture(ResNet(64, 2, (1, 2, 1, 1), 1), TEXT, 64)
    assert read_architecture(architecture.shapes()) == architecture


@pytest.mark.parametrize("blocks", [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 1, 0), (0, 0, 0, 0)])
def test_a_resnet_with_a_stage_of_no_blocks_is_refused(blocks: tuple[int, ...]) -> None:
    shapes = Architecture(ResNet(64, 2, blocks, 1), TEXT, 64).shapes()
    with pytest.raises(Misfit, match="its number of layers is 0"):
        read_architecture(shapes)
