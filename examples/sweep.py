"""Sweep methods, bits and seeds over all cores or a Ray cluster (extra ``sweep``).

    python examples/sweep.py

Each job is an ordinary ``dreamquant.quantize``; Ray schedules them. Start a cluster with ``ray
start --head`` and set ``RAY_ADDRESS`` to use more than this machine.
"""

import logging
from itertools import product
from typing import Any

import ray


@ray.remote(num_cpus=1)
def job(method: str, bits: str, seed: int, iterations: int) -> dict[str, Any]:
    """Quantize the embedded digit network once."""
    import torch

    from dreamquant import quantize
    from dreamquant.networks import demo

    torch.set_num_threads(1)
    result = quantize(
        demo.teacher(),
        bits,
        method,
        iterations=iterations,
        seed=seed,
        data=demo.HELD_OUT,
        quiet=True,
    )
    return {"method": method, "bits": bits, "seed": seed, **result.summary()}


def main(iterations: int = 200, seeds: int = 3) -> list[dict[str, Any]]:
    """Run the sweep and print a line per job."""
    ray.init(include_dashboard=False, logging_level=logging.ERROR)
    grid = product(("gdfq", "adadfq"), ("w3a3", "w4a4"), range(seeds))
    rows: list[dict[str, Any]] = ray.get([job.remote(*point, iterations) for point in grid])
    for row in rows:
        print(row["method"], row["bits"], row["seed"], f"{row['student']['top1']:.2f} %")
    ray.shutdown()
    return rows


if __name__ == "__main__":
    main()
