"""The nodes that most tests use, with the images that this repository would make."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from tests.cluster.images import Image, Images
from tests.cluster.kubelet import NodeShape
from tests.cluster.nodes import Nodes
from tests.cluster.store import Store

FLOWS = "modelyard/flows:test"
GPU = "nvidia.com/gpu"
GPU_TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}
_HOME = "/modelyard/home"
_REPOSITORY = Path(__file__).resolve().parents[2]


def flows_image() -> Image:
    """What stands for the image of flows: this repository, with the interpreter of the tests."""
    folders = {sys.prefix, sys.base_prefix, str(Path(sys.prefix).resolve()), str(_REPOSITORY)}
    path = [sysconfig.get_path("scripts"), "/usr/local/bin", "/usr/bin", "/bin"]
    home = {"HOME": _HOME, "MODELYARD_HOME": _HOME}
    return Image(
        command=("python",),
        env={"PATH": ":".join(path), "PYTHONPATH": str(_REPOSITORY), **home},
        workdir=_HOME,
        user=1000,
        holds=tuple(sorted(folders)),
    )


def nodes(store: Store, folder: Path) -> Nodes:
    """A node without GPUs, and two with GPUs and their taint."""
    labels = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    shapes = [NodeShape("cpu-a", cpu="16", memory="64Gi")]
    shapes += [
        NodeShape(
            name, cpu="64", memory="512Gi", storage="2Ti", devices={GPU: 8}, labels=labels,
            taints=(GPU_TAINT,),
        )
        for name in ("gpu-a", "gpu-b")
    ]  # fmt: skip
    return Nodes(store, folder, Images({FLOWS: flows_image()}), shapes)
