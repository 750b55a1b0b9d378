"""What a person writes to quantize a module with Brevitas: FLOAT.pt IMAGES.npy OUT.onnx."""

import sys

import numpy as np
import torch
from brevitas.export import export_onnx_qcdq
from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
from brevitas.graph.quantize import layerwise_quantize, preprocess_for_quantize

source, images, out = sys.argv[1:]
images = torch.from_numpy(np.load(images))
model = torch.load(source, weights_only=False).eval()
model = layerwise_quantize(preprocess_for_quantize(model, equalize_iters=20))
with torch.no_grad():
    with calibration_mode(model):
        model(images)
    with bias_correction_mode(model):
        model(images)
names = {"input_names": ["images"], "output_names": ["logits"]}
axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
export_onnx_qcdq(model, images[:1], out, dynamo=False, dynamic_axes=axes, **names)
