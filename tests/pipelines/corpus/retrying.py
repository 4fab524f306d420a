"""A task that fails until its third try, and one that is never cached."""

from kfp import dsl

from tests.pipelines.corpus.components import IMAGE, echo

ARGUMENTS = {"counter": "{folder}/counter"}
OUTPUTS = {"Output": 3}


@dsl.component(base_image=IMAGE)
def third_time(counter: str) -> int:
    import os

    with open(counter, "a") as file:
        file.write("x")
    tries = os.path.getsize(counter)
    if tries < 3:
        raise RuntimeError(f"try {tries}")
    return tries


@dsl.pipeline(name="retrying")
def pipeline(counter: str) -> int:
    echo(text="always").set_caching_options(enable_caching=False)
    echo(text="by key").set_caching_options(enable_caching=True, cache_key="the-key")
    return (
        third_time(counter=counter)
        .set_retry(3, backoff_duration="0s", backoff_factor=2.0, backoff_max_duration="60s")
        .set_caching_options(False)
        .output
    )
