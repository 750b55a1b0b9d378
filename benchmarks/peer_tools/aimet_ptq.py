"""What a person writes to quantize a module with AIMET: FLOAT.pt IMAGES.npy OUT.onnx."""

import sys

import aimet_torch
import numpy as np
import torch
from aimet_torch.cross_layer_equalization import equalize_model
from aimet_torch.quantsim import QuantizationSimModel

source, images, out = sys.argv[1:]
images = torch.from_numpy(np.load(images))
model = torch.load(source, weights_only=False).eval()
equalize_model(model, dummy_input=images[:1])
sim = QuantizationSimModel(model, images[:1])
sim.compute_encodings(lambda model: model(images))
axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
names = {"input_names": ["images"], "output_names": ["logits"]}
aimet_torch.onnx.export(sim.model, images[:1], out, dynamo=False, dynamic_axes=axes, **names)
