"""Secrets as variables and as files; one whose name a task hands on, and optional ones."""

from kfp import dsl, kubernetes

from tests.pipelines.corpus.components import IMAGE, echo

ARGUMENTS = {"name": "first"}
OUTPUTS = {"Output": "PASSWORD=5 key=4 TOKEN=3 none=[]"}
SECRETS = {"first": {"password": "pass5", "key": "key4"}, "second": {"token": "tok"}}
MOUNTS = True


@dsl.component(base_image=IMAGE)
def lengths() -> str:
    import os

    with open("/secret/key") as file:
        key = file.read()
    return (
        f"PASSWORD={len(os.environ['PASSWORD'])} key={len(key)} "
        f"TOKEN={len(os.environ['TOKEN'])} none={os.listdir('/none')}"
    )


@dsl.pipeline(name="secrets")
def pipeline(name: str) -> str:
    task = lengths()
    kubernetes.use_secret_as_env(task, name, {"password": "PASSWORD"})
    kubernetes.use_secret_as_volume(task, name, "/secret")
    kubernetes.use_secret_as_env(task, echo(text="second").output, {"token": "TOKEN"})
    kubernetes.use_secret_as_env(task, "gone", {"token": "GONE"}, optional=True)
    kubernetes.use_secret_as_volume(task, "gone", "/none", optional=True)
    return task.output
