# Three images: `serving`, the default, `training` and `watching` (--target …). Each has its own environment, because torch
# and torchvision must come from the same index: a torchvision that was built for another torch cannot be imported.

# The minor version, which receives security fixes of Python and Debian when it is pulled again. For builds that can be
# repeated, --build-arg BASE_IMAGE=python:3.11.15-slim-bookworm@sha256:…
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM $BASE_IMAGE AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
# The standard library has no bytecode, and none can be written later: each health check would compile it again.
RUN python -m compileall -q -x "site-packages|lib2to3" "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"


# Only the lists of dependencies, so that other changes of pyproject.toml do not invalidate the slow layers.
FROM base AS requirements
COPY pyproject.toml .
RUN python -c "import pathlib, tomllib; \
project = tomllib.loads(pathlib.Path('pyproject.toml').read_text())['project']; \
serving = project['dependencies']; \
training = serving + project['optional-dependencies']['training']; \
pathlib.Path('serving.txt').write_text('\n'.join(serving)); \
pathlib.Path('training.txt').write_text('\n'.join(training)); \
extras = project['optional-dependencies']; \
pathlib.Path('watching.txt').write_text('\n'.join(extras['client'] + extras['watch'] + extras['mqtt'] + extras['camera']))"


FROM base AS installer
# UV_SYSTEM_CERTS: behind a company's proxy, a base image that trusts its certificate authority is sufficient.
ENV PIP_CACHE_DIR=/var/cache/packages/pip \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    UV_CACHE_DIR=/var/cache/packages/uv \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON=/opt/venv/bin/python \
    UV_SYSTEM_CERTS=1
RUN --mount=type=cache,target=/var/cache/packages \
    pip install pip==26.3 uv==0.13.9 && python -m venv --without-pip /opt/venv
# requirements.lock has the SHA-256 of every file. The builds of torch in a backend index are other files than those of
# the default index; all other packages are compared with it there, too. (Older versions of pip refuse such constraints.)
COPY requirements.lock .
RUN awk '/^[^ ]/ {torch = /^torch(vision)?==/; if (torch) sub(/ \\$/, "")} !torch || /^[^ ]/' requirements.lock > backend-requirements.lock
# cpu: torch without CUDA, which makes the image a quarter of the size. Empty: torch from the default index.
ARG TORCH_BACKEND=cpu


# If the index of the backend cannot be reached (without retries, so at once), pip uses its configured index.
FROM installer AS serving-environment
COPY --from=requirements /app/serving.txt .
RUN --mount=type=cache,target=/var/cache/packages \
    UV_HTTP_RETRIES=0 uv pip install ${TORCH_BACKEND:+"--torch-backend=$TORCH_BACKEND"} \
      --constraint "${TORCH_BACKEND:+backend-}requirements.lock" -r serving.txt \
    || { echo "uv could not install (see above): installing with pip" >&2 \
         && pip --python "$UV_PYTHON" install --constraint requirements.lock -r serving.txt; }


FROM installer AS watching-environment
COPY --from=requirements /app/watching.txt .
RUN --mount=type=cache,target=/var/cache/packages \
    uv pip install --constraint requirements.lock -r watching.txt


# Here uv uses the default index instead, because pip's configured index may have a torch that does not fit torchvision.
FROM installer AS training-environment
COPY --from=requirements /app/training.txt .
RUN --mount=type=cache,target=/var/cache/packages \
    UV_HTTP_RETRIES=0 uv pip install ${TORCH_BACKEND:+"--torch-backend=$TORCH_BACKEND"} \
      --constraint "${TORCH_BACKEND:+backend-}requirements.lock" -r training.txt \
    || { echo "uv could not install (see above): installing torch from the default index" >&2 \
         && uv pip install --constraint requirements.lock -r training.txt; } \
    && python -c "import torchvision"


# Readable by every user, whatever the umask of the checkout; compiled now, because the root will be read-only.
FROM base AS code
COPY app app
COPY training training
COPY model_store model_store
RUN python -m compileall -q --invalidation-mode unchecked-hash app training \
    && chmod -R a+rX,go-w .


FROM base AS training
ENV HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib
# Writable for every user, because training may run as any user; new volumes inherit the mode.
RUN install -d -m 1777 data model_store
COPY --from=training-environment /opt/venv /opt/venv
COPY --from=code /app/app app
COPY --from=code /app/training training
USER 10001:10001
# SIGINT raises KeyboardInterrupt, which ends training with one line. Python as process 1 would ignore SIGTERM.
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "-m", "training"]


FROM base AS watching
ENV HOME=/tmp
COPY --from=watching-environment /opt/venv /opt/venv
COPY --from=code /app/app app
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "app.client", "watch"]


FROM base AS serving
ENV ANOMALY_HOST=0.0.0.0 \
    ANOMALY_LOG_FORMAT=json \
    ANOMALY_MODEL_STORE=/app/model_store \
    HOME=/tmp \
    OMP_WAIT_POLICY=passive
COPY --from=serving-environment /opt/venv /opt/venv
COPY --from=code /app/app app
COPY --from=code /app/model_store model_store
USER 10001:10001
EXPOSE 8000
# Without proxies, because a proxy from the environment cannot reach 127.0.0.1 of the container.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "\
import os, urllib.request as web; \
web.build_opener(web.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ.get(\"ANOMALY_PORT\", 8000)}/health/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "app"]
