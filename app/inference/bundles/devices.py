"""Where models compute: the processor or a graphics processor."""

from typing import Final

import torch

from app.inference.errors import DeviceUnavailable

PROCESSOR: Final = torch.device("cpu")


def device_named(name: str) -> torch.device:
    """The device of a name.

    Convolutions on it are computed in single precision, as on the processor: scores must agree with the calibration's.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1`` and so on, or ``auto``: the first graphics processor, if there is one.

    Raises:
        DeviceUnavailable: this machine, or this build of torch, has no such device.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return PROCESSOR
    device = torch.device("cuda" if name == "auto" else name)
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        build = "" if torch.version.cuda else f", and torch {torch.__version__} was built without CUDA"
        raise DeviceUnavailable(f"there is no {name}: torch finds {count} graphics processors{build}")
    torch.backends.cudnn.allow_tf32 = False
    return device
