"""Choice of where the shards of a batch inference run, and what each of them has there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil

from infra import instance_types, site
from infra.settings import Settings
from tasks.batch_inference import pod_resources
from tasks.batch_inference.pod_resources import PodResources

if TYPE_CHECKING:
    from tasks.batch_inference.inference_request import BatchInference


def runs_in_pods(settings: Settings) -> bool:
    """Whether shards are pods of a cluster, as this process is; else they are its processes.

    A run's pod may create Jobs if its placement says so; see :mod:`tasks.placement`.
    """
    return site.in_pod() and settings.pipeline_launcher == "kubernetes"


def share(request: BatchInference, settings: Settings) -> PodResources:
    """What each shard has: its part of an instance on a cluster, else of this machine.

    Raises:
        BadInputError: As :func:`pod_resources.divide_instance`.
    """
    if site.is_validating_for_remote() or runs_in_pods(settings):
        asked = request.resources
        shape = instance_types.find(asked.instance_type, settings)
        return pod_resources.divide_instance(shape, asked.nodes, request.pods)
    memory = psutil.virtual_memory().total
    return PodResources((os.cpu_count() or 1) / request.pods, memory // request.pods)
