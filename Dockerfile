# syntax=docker/dockerfile:1
#
# CPU (default):    docker build -t tracegrad:cpu .
# CUDA:             docker build -t tracegrad:gpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
# without torch's own index: --build-arg TORCH_INDEX=https://pypi.org/simple   takes the CUDA build of the same version
#                   (several GB; it runs on a CPU too)
# base by digest:   --build-arg PYTHON_IMAGE=python:3.11-slim@sha256:...
# the default checkpoint's forward pass compiled for x86-64-v3: --build-arg COMPILED=yes   takes some minutes more, of a build on
#                   x86-64; the image has 18 MB more and no compiler all the same
#
# The versions are those of constraints.txt in all cases; TORCH_INDEX only chooses which build of torch is taken. Layers, from
# what changes least: base, dependencies (about 1.2 GB), product (a few MB). A change of code makes the last one anew.

ARG PYTHON_IMAGE=python:3.11-slim

# The names of the dependencies alone: other changes of pyproject.toml leave the layer of the dependencies as it is.
FROM ${PYTHON_IMAGE} AS requirements
COPY pyproject.toml /
RUN python -c "import tomllib; p = tomllib.load(open('/pyproject.toml', 'rb'))['project']; e = p['optional-dependencies']; print(*p['dependencies'], *e['tracing'], *e['pictures'], sep='\n')" > /requirements.txt

FROM ${PYTHON_IMAGE} AS installed
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/tracegrad
ENV PATH=/opt/tracegrad/bin:$PATH
# torch first and alone, from its own index: the wheel of the same version on PyPI is the CUDA one and pulls several GB.
# --no-deps keeps every other package on PyPI; the next step installs what torch needs.
COPY constraints.txt /
RUN pip install --no-deps --index-url "${TORCH_INDEX}" "$(grep -E '^torch==' /constraints.txt)"
COPY --from=requirements /requirements.txt /
# The product is a folder of its own behind them, wherever this Python keeps packages.
RUN echo /opt/product > "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/product.pth"
# Each archive by its SHA-256, where there are pins for this Python and processor (make pins); what they leave out, such as the
# libraries of torch's CUDA build, follows by version.
COPY deploy/pins-*.txt /pins/
RUN pins="/pins/pins-cp$(python -c 'import sys; print(*sys.version_info[:2], sep="")')-linux-$(uname -m).txt"; \
    if [ -f "$pins" ]; then pip install --no-deps --require-hashes --requirement "$pins"; fi
RUN pip install --constraint /constraints.txt --requirement /requirements.txt && pip check \
 && pip inspect --local > /opt/tracegrad/packages.json

# Left out: tests of the dependencies, C++ headers and build tools of torch. Nothing here is imported by anything that runs.
FROM installed AS dependencies
RUN cd /opt/tracegrad/lib/python3*/site-packages \
 && rm -rf torch/test torch/include torch/share \
 && find torch/bin -type f ! -name torch_shm_manager -delete \
 && find . -type d \( -name tests -o -name test \) -path './*/*' \
    \( -path './scipy/*' -o -path './numpy/*' -o -path './pyscf/*' -o -path './ase/*' -o -path './matplotlib/*' \
       -o -path './h5py/*' -o -path './sympy/*' -o -path './networkx/*' -o -path './e3nn/*' \) -prune -exec rm -rf {} +

# The compiler stays here: the image has none, and its /tmp may not be executable.
FROM ${PYTHON_IMAGE} AS kernel
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY model/nn/kernel_files.py /build/
COPY model/architectures/qhnet_published/pair_products.c model/integrals/coulomb.c model/tracegrad/ragged_gradient.c /build/
RUN mkdir /products /coulomb /tracegrad && python /build/kernel_files.py /build/pair_products.c /products \
 && python /build/kernel_files.py /build/coulomb.c /coulomb \
 && python /build/kernel_files.py /build/ragged_gradient.c /tracegrad

FROM ${PYTHON_IMAGE} AS product
RUN python -m venv /build && /build/bin/pip install --no-cache-dir 'setuptools>=77'
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY model ./model
COPY service ./service
COPY --from=kernel /products ./model/architectures/qhnet_published
COPY --from=kernel /coulomb ./model/integrals
COPY --from=kernel /tracegrad ./model/tracegrad
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /build/bin/pip install --no-deps --target /product /wheel/*.whl

# Empty unless it is asked for; the compiler and torch's headers stay here. One stage with a condition: builders other than BuildKit
# do not follow a stage whose name is made of an argument.
FROM installed AS compiled
ARG COMPILED=no
COPY --from=product /product /opt/product
COPY checkpoints/default /checkpoint
RUN mkdir /compiled && if [ "$COMPILED" = yes ]; then \
    apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/* \
 && OMP_NUM_THREADS=1 python -m model.exported /checkpoint -o /compiled --level x86-64-v3; fi

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 tracegrad \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tracegrad
# a volume that is mounted here for the first time takes over this owner
RUN install --directory --owner=tracegrad --group=tracegrad --mode=0700 /jobs
COPY --from=dependencies /opt/tracegrad /opt/tracegrad
ENV PATH=/opt/tracegrad/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYSCF_TMPDIR=/tmp \
    TRACEGRAD_HOST=0.0.0.0 \
    TRACEGRAD_PORT=8000 \
    TRACEGRAD_CHECKPOINTS=/checkpoints \
    TRACEGRAD_COMPILED=/opt/compiled \
    TRACEGRAD_JOBS_FOLDER=/jobs
# Copied, not installed from a mount of the other stage: builders other than BuildKit do not see that what is mounted has changed.
COPY --from=product /product /opt/product
COPY --from=compiled /compiled /opt/compiled
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG SOURCE=
RUN echo "${VERSION} ${REVISION}" > /opt/tracegrad/version
WORKDIR /srv
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# In Python, since the slim image has no curl. The start period is for loading and warming up the weights.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['TRACEGRAD_PORT'] + '/health/ready', timeout=4)"]
CMD ["python", "-m", "service"]
LABEL org.opencontainers.image.title="TraceGrad service" \
      org.opencontainers.image.description="Predicted Kohn-Sham Hamiltonians as starting points for DFT" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
