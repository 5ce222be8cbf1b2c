# Two images: `serving`, the default, and `training` (--target training). Each gets its own environment, because
# torch and torchvision must come from one place: a torchvision built for another torch does not import.

FROM python:3.11-slim-bookworm AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
# The standard library comes without bytecode, and a read-only root never gets any: each health check would compile anew.
RUN python -m compileall -q -x "site-packages|lib2to3" "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"


# The dependency lists alone, so that no other edit of pyproject.toml repeats the slow layers.
FROM base AS requirements
COPY pyproject.toml .
RUN python -c "import pathlib, tomllib; \
project = tomllib.loads(pathlib.Path('pyproject.toml').read_text())['project']; \
serving = project['dependencies']; \
training = serving + project['optional-dependencies']['training']; \
pathlib.Path('serving.txt').write_text('\n'.join(serving)); \
pathlib.Path('training.txt').write_text('\n'.join(training))"


FROM base AS installer
# The system's certificates: a base image that trusts a company's own authority is enough behind its proxy.
ENV PIP_CACHE_DIR=/var/cache/packages/pip \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    UV_CACHE_DIR=/var/cache/packages/uv \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON=/opt/venv/bin/python \
    UV_SYSTEM_CERTS=1
RUN --mount=type=cache,target=/var/cache/packages \
    pip install uv && python -m venv --without-pip /opt/venv
COPY requirements.lock .
# cpu: torch without CUDA, an image of a quarter of the size. Empty: the ordinary registry's torch.
ARG TORCH_BACKEND=cpu


# Where the backend's index does not answer (no retries: at once), pip asks what it is configured to ask.
FROM installer AS serving-environment
COPY --from=requirements /app/serving.txt .
RUN --mount=type=cache,target=/var/cache/packages \
    UV_HTTP_RETRIES=0 uv pip install ${TORCH_BACKEND:+"--torch-backend=$TORCH_BACKEND"} \
      --constraint requirements.lock -r serving.txt \
    || { echo "uv could not install (see above): installing with pip" >&2 \
         && pip --python "$UV_PYTHON" install --constraint requirements.lock -r serving.txt; }


# Here uv asks the ordinary registry instead: pip might be configured to find a torch that its torchvision does not fit.
FROM installer AS training-environment
COPY --from=requirements /app/training.txt .
RUN --mount=type=cache,target=/var/cache/packages \
    UV_HTTP_RETRIES=0 uv pip install ${TORCH_BACKEND:+"--torch-backend=$TORCH_BACKEND"} \
      --constraint requirements.lock -r training.txt \
    || { echo "uv could not install (see above): installing the ordinary registry's torch" >&2 \
         && uv pip install --constraint requirements.lock -r training.txt; } \
    && python -c "import torchvision"


# Readable by every user, whatever the umask of the checkout; compiled now, because nothing can be written later.
FROM base AS code
COPY app app
COPY training training
COPY model_store model_store
RUN python -m compileall -q --invalidation-mode unchecked-hash app training \
    && chmod -R a+rX,go-w .


FROM base AS training
ENV HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib
# Any user may be the one that trains; new volumes mounted here take over the mode.
RUN install -d -m 1777 data model_store
COPY --from=training-environment /opt/venv /opt/venv
COPY --from=code /app/app app
COPY --from=code /app/training training
USER 10001:10001
# Python turns it into KeyboardInterrupt, and training ends with one line. As process 1 it would not heed SIGTERM.
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "-m", "training"]


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
# Without proxies: where the environment names one, it must not be asked for 127.0.0.1.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "\
import os, urllib.request as web; \
web.build_opener(web.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ.get(\"ANOMALY_PORT\", 8000)}/health/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "app"]
