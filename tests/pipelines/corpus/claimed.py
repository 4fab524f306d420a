"""A claim that is created, handed from one task to another, also into a branch, and deleted."""

from kfp import dsl, kubernetes

from tests.pipelines.corpus.components import IMAGE, echo

ARGUMENTS = {}
OUTPUTS = {"Output": "left in the claim, and more"}
MOUNTS = True


@dsl.component(base_image=IMAGE)
def leave(text: str) -> str:
    with open("/data/note.txt", "w") as file:
        file.write(text)
    return "left"


@dsl.container_component
def append(text: str, done: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image="alpine",
        command=[
            "sh",
            "-c",
            'printf "%s" "$0" >> /part/note.txt; mkdir -p "${1%/*}"; echo > "$1"',
        ],
        args=[text, done],
    )


@dsl.component(base_image=IMAGE)
def take(after: str) -> str:
    with open("/elsewhere/deep/note.txt") as file:
        return file.read()


@dsl.pipeline(name="claimed")
def pipeline(size: str = "1Gi") -> str:
    claim = kubernetes.CreatePVC(
        pvc_name_suffix="-shared", access_modes=["ReadWriteMany"], size=size,
        annotations={"team": "blue"},
    )  # fmt: skip
    left = leave(text="left in the claim")
    kubernetes.mount_pvc(left, claim.outputs["name"], "/data", sub_path="part")
    with dsl.If(left.output == "left"):
        appended = append(text=", and more")
        kubernetes.mount_pvc(appended, claim.outputs["name"], "/part", sub_path="part")
    with dsl.Else():
        not_left = echo(text="not left")
    taken = take(after=dsl.OneOf(appended.outputs["done"], not_left.output))
    kubernetes.mount_pvc(taken, claim.outputs["name"], "/elsewhere/deep", sub_path="part")
    kubernetes.DeletePVC(pvc_name=claim.outputs["name"]).after(taken)
    return taken.output
