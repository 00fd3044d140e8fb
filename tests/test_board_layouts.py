"""Planar images, where the engine can read them and where it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import board_case
import networks
import numpy as np
from board_case import ENGINE, OFFSET
from test_board_driver import Platform

from hwgen.driver.bitsmith_driver import Accelerator
from hwgen.network import Samples
from hwgen.schedule import schedule


def test_planar_images_of_a_linear_layer_on_the_image_are_turned(tmp_path: Path) -> None:
    """The engine takes such an image as one long pixel, whose bytes have one order only: the driver gives it that."""
    assert not schedule(networks.one_layer((4, 4, 1)), ENGINE).channels_last
    assert not schedule(networks.one_layer((4, 4, 3)), ENGINE).channels_last
    network = networks.one_layer((4, 4, 2))
    assert schedule(network, ENGINE).channels_last
    images = np.random.default_rng(1).integers(0, 16, (3, 4, 4, 2)).astype(np.uint8)
    packed = board_case.bundle(tmp_path / "bundle", replace(network, samples=Samples(images, np.zeros(3, np.int64))))
    platform = Platform()
    with Accelerator(packed, platform) as acc:
        for layout in (images, np.ascontiguousarray(images.transpose(0, 3, 1, 2))):
            acc._inputs[0].array[:] = 255
            acc.predict(layout)
            assert platform.engine.registers[OFFSET["image_planar"]] == 0
            filled = acc._inputs[0].array[: 3 * acc._image_stride].reshape(3, -1)[:, :32]
            assert (filled == images.reshape(3, 32)).all()
