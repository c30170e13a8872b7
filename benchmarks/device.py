"""What the benchmarks share: naming the hardware, and waiting for a GPU before a clock is read."""

import platform

import torch


def hardware(device: torch.device) -> str:
    """``2 threads of x86_64``, or the name of the GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads of {platform.processor() or platform.machine()}"


def synchronise(device: torch.device) -> None:
    """Wait until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
