"""What a person writes to quantize a module with MCT: FLOAT.pt IMAGES.npy OUT.onnx."""

import sys

import model_compression_toolkit as mct
import numpy as np
import torch

source, images, out = sys.argv[1:]
model = torch.load(source, weights_only=False).eval()
images = np.load(images)


def representative():
    """Images one by one."""
    for image in images:
        yield [image[None]]


quantized, _ = mct.ptq.pytorch_post_training_quantization(model, representative)
names = {"input_names": ["images"], "output_names": ["logits"]}
axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
example = torch.as_tensor(images[:1])
torch.onnx.export(quantized.eval(), (example,), out, dynamo=False, dynamic_axes=axes, **names)
