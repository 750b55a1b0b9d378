"""What a person writes for MCT, which makes the images: FLOAT.pt IMAGES.npy OUT.onnx."""

import sys

import model_compression_toolkit as mct
import numpy as np
import torch

source, images, out = sys.argv[1:]
model = torch.load(source, weights_only=False).eval()
config = mct.data_generation.get_pytorch_data_generation_config(data_gen_batch_size=64)
made = mct.data_generation.pytorch_data_generation_experimental(
    model, 64, np.load(images).shape[2:], config
)
images = torch.cat([torch.as_tensor(each).reshape(-1, *each.shape[-3:]) for each in made]).numpy()


def representative():
    """Images one by one."""
    for image in images:
        yield [image[None]]


quantized, _ = mct.ptq.pytorch_post_training_quantization(model, representative)
names = {"input_names": ["images"], "output_names": ["logits"]}
axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
example = torch.as_tensor(images[:1])
torch.onnx.export(quantized.eval(), (example,), out, dynamo=False, dynamic_axes=axes, **names)
