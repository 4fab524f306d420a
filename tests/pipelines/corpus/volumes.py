"""A claim that is created, mounted and deleted. This pipeline is only read."""

from kfp import dsl, kubernetes

from tests.pipelines.corpus.components import echo

ARGUMENTS = {}
OUTPUTS = None


@dsl.pipeline(name="volumes")
def pipeline(size: str = "5Gi"):
    claim = kubernetes.CreatePVC(
        pvc_name_suffix="-shared",
        access_modes=["ReadWriteMany"],
        size=size,
        storage_class_name="standard",
    )
    used = echo(text="used")
    kubernetes.mount_pvc(used, claim.outputs["name"], "/data", sub_path="part")
    kubernetes.mount_pvc(used, "fixed", "/fixed")
    kubernetes.DeletePVC(pvc_name=claim.outputs["name"]).after(used)
