"""Boxes, masks and labels beside images, in the layouts that the documentation names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dreamquant.errors import DataError
from dreamquant.evaluation.data import open_images
from dreamquant.networks.spec import InputSpec


def network(task, classes, **more):
    return InputSpec((3, 4, 4), (0.0,) * 3, (1.0,) * 3, classes, task=task, **more)


def picture(path, size=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def no_boxes(output):
    return output


def test_boxes_of_a_table(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / "images" / f"{name}.png", size=(8, 4))
    table = "file,class,cx,cy,w,h\na.png,2,0.5,0.5,0.25,1\na.png,1,0.125,0.5,0.25,1\n"
    (tmp_path / "boxes.csv").write_text(table)
    images = open_images(tmp_path, network("regression", 3), boxes=no_boxes)
    # The network sees the middle of the wide image: what lies left of it is left out.
    assert images.truth[0].tolist() == [[2, 0.25, 0, 0.75, 1]]
    assert len(images.truth[1]) == 0
    assert not open_images(tmp_path, network("regression", 3)).labelled


def test_boxes_as_yolo_has_them(tmp_path):
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "images" / "b.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "b.txt").write_text("1 0.5 0.5 0.5 0.5\n\n")
    images = open_images(tmp_path, network("regression", 0), boxes=no_boxes)
    assert [len(each) for each in images.truth[0:2]] == [0, 1]
    assert images.truth[1].tolist() == [[1, 0.25, 0.25, 0.75, 0.75]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,class\na.png,1\n", "is not a table of file,class,cx,cy,w,h"),
        ("file,class,cx,cy,w,h\nz.png,1,0,0,0,0\n", "names z.png, which does not exist"),
        ("file,class,cx,cy,w,h\na.png,7,0,0,0,0\n", "a box has class 7, but the network has 3"),
    ],
)
def test_boxes_that_do_not_fit(tmp_path, table, message):
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "boxes.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        open_images(tmp_path, network("regression", 3), boxes=no_boxes)


@pytest.mark.parametrize("folder", ["voc_masks", "SegmentationClass"])
def test_masks_of_images(tmp_path, folder):
    picture(tmp_path / "JPEGImages" / "a.png")
    picture(tmp_path / "JPEGImages" / "b.png", size=(8, 8))
    (tmp_path / folder).mkdir()
    mask = Image.fromarray(np.kron([[0, 2], [1, 255]], np.ones((4, 4))).astype(np.uint8))
    mask.save(tmp_path / folder / "b.png")
    images = open_images(tmp_path, network("segmentation", 3))
    assert len(images) == 1  # a has no mask
    assert torch.equal(images.truth[0][::2, ::2], torch.tensor([[0, 2], [1, 255]]))
    with pytest.raises(DataError, match="contains class 2, but the network has 2"):
        open_images(tmp_path, network("segmentation", 2)).truth[0]


def test_masks_of_an_npz(tmp_path):
    masks = np.zeros((2, 4, 4), np.uint8)
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 4, 4, 3), np.uint8), labels=masks)
    assert open_images(tmp_path / "x.npz", network("segmentation", 2)).truth.shape == (2, 4, 4)
    with pytest.raises(DataError, match="labels have shape"):
        open_images(tmp_path / "x.npz", network("multi-label", 5))


def test_several_labels_of_a_table(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("file,label\nb.png,0\nb.png,2\n")
    images = open_images(tmp_path, network("multi-label", 3))
    assert images.truth.tolist() == [[0, 0, 0], [1, 0, 1]]
