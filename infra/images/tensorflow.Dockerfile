# syntax=docker/dockerfile:1
# Modelyard with TensorFlow. The lock's versions stay as they are: what cannot bear them is refused.
#   docker build -f infra/images/tensorflow.Dockerfile --build-arg BASE=modelyard:0.1.0-cuda .
ARG BASE=modelyard:0.1.0
FROM ${BASE}
# EXTRA=[and-cuda] brings CUDA's libraries along, for GPUs.
ARG EXTRA=
ARG PIP_INDEX_URL
ARG TENSORFLOW_VERSION=2.21.0
USER 0:0
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip freeze --exclude modelyard > /tmp/kept.txt \
    && python -m pip install --no-cache-dir --disable-pip-version-check \
        --constraint /tmp/kept.txt "tensorflow${EXTRA}==${TENSORFLOW_VERSION}" \
    && rm /tmp/kept.txt
USER 1000:1000
