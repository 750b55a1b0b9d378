"""What a person writes to quantize a file with NNCF: FLOAT.onnx IMAGES.npy OUT.onnx."""

import sys

import nncf
import numpy as np
import onnx

source, images, out = sys.argv[1:]
calibration = nncf.Dataset([{"images": image[None]} for image in np.load(images)])
quantized = nncf.quantize(onnx.load(source), calibration)
onnx.save(quantized, out)
