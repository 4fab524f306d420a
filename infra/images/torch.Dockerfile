# syntax=docker/dockerfile:1
# Modelyard with PyTorch. The lock's versions stay as they are: what cannot bear them is refused.
#   docker build -f infra/images/torch.Dockerfile --build-arg BASE=modelyard:0.1.0-cuda .
ARG BASE=modelyard:0.1.0
FROM ${BASE}
# Which build of PyTorch is right depends on the GPUs' driver: the index that has it is told here.
ARG PIP_INDEX_URL
ARG TORCH_VERSION=2.13.0
USER 0:0
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip freeze --exclude modelyard > /tmp/kept.txt \
    && python -m pip install --no-cache-dir --disable-pip-version-check \
        --constraint /tmp/kept.txt "torch==${TORCH_VERSION}" \
    && rm /tmp/kept.txt
USER 1000:1000
