# syntax=docker/dockerfile:1
#
# CPU (default):  docker build -t tracegrad:cpu .
# CUDA:           docker build -t tracegrad:gpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#
# The versions are those of constraints.txt in both cases; the argument only chooses which build of torch is taken.

ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/tracegrad
ENV PATH=/opt/tracegrad/bin:$PATH
WORKDIR /src

# torch first and alone, from its own index: the wheel of the same version on PyPI is the CUDA one and pulls several GB.
# --no-deps keeps every other package on PyPI; the next step installs what torch needs.
COPY constraints.txt ./
RUN pip install --no-deps --index-url "${TORCH_INDEX}" "$(grep -E '^torch==' constraints.txt)"

COPY pyproject.toml README.md LICENSE ./
COPY model ./model
COPY service ./service
RUN pip install --constraint constraints.txt '.[tracing,pictures]' && pip check

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 tracegrad \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tracegrad
# a volume that is mounted here for the first time takes over this owner
RUN install --directory --owner=tracegrad --group=tracegrad --mode=0700 /jobs
COPY --from=build /opt/tracegrad /opt/tracegrad
ENV PATH=/opt/tracegrad/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYSCF_TMPDIR=/tmp \
    TRACEGRAD_HOST=0.0.0.0 \
    TRACEGRAD_PORT=8000 \
    TRACEGRAD_CHECKPOINTS=/checkpoints \
    TRACEGRAD_JOBS_FOLDER=/jobs
WORKDIR /srv
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# In Python, since the slim image has no curl. The start period is for loading and warming up the weights.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['TRACEGRAD_PORT'] + '/health/ready', timeout=4)"]
CMD ["python", "-m", "service"]
