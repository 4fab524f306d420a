"""A compiled pipeline: the IR and the platform spec of its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

ROOT = "root"


@dataclass(frozen=True)
class Pipeline:
    """A pipeline.

    Attributes:
        spec: The IR, its first document.
        deployment: ``spec.deployment_spec``, parsed: the executors by their labels.
        kubernetes: The platform spec of Kubernetes, its second document: by executor label, as
            plain data in the form of ``KubernetesExecutorConfig``; empty if there is none.
        config: What the platform spec says of the pipeline as a whole (workspace, deadlines).
        digest: SHA-256 of the file's documents in a canonical form, hexadecimal.
    """

    spec: ir.PipelineSpec
    deployment: ir.PipelineDeploymentConfig
    kubernetes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""

    @property
    def name(self) -> str:
        """The name that it was compiled with."""
        return str(self.spec.pipeline_info.name)

    def component(self, name: str) -> ir.ComponentSpec:
        """Return a component; ``root`` is the pipeline itself.

        Raises:
            KeyError: If there is none. A validated pipeline refers to none such.
        """
        if name == ROOT:
            return self.spec.root
        if name not in self.spec.components:
            raise KeyError(name)
        return self.spec.components[name]

    def executor(self, label: str) -> ir.PipelineDeploymentConfig.ExecutorSpec:
        """Return the executor of a label.

        Raises:
            KeyError: If there is none. A validated pipeline refers to none such.
        """
        if label not in self.deployment.executors:
            raise KeyError(label)
        return self.deployment.executors[label]
