"""What a person writes to quantize a file with ONNX Runtime: FLOAT.onnx IMAGES.npy OUT.onnx."""

import sys

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):
    """Images one by one."""

    def __init__(self, images, name):
        self.rows = iter([{name: image[None]} for image in images])

    def get_next(self):
        """The next one, or nothing."""
        return next(self.rows, None)


source, images, out = sys.argv[1:]
prepared = f"{out}.prepared.onnx"
quant_pre_process(source, prepared)
quantize_static(
    prepared,
    out,
    Reader(np.load(images), "images"),
    quant_format=QuantFormat.QDQ,
    per_channel=True,
    activation_type=QuantType.QUInt8,
    weight_type=QuantType.QInt8,
)
