# Two targets: `cpu` (default) and `nvidia`. Only the demo's weights are inside.
#
#   docker build --target cpu -t ddo-serve .
#   docker build --target nvidia -t ddo-serve:nvidia .
#
# The package index gives torch's CUDA build. For a smaller CPU image point PIP_EXTRA_INDEX_URL at torch's
# index of CPU builds.
FROM python:3.12-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --create-home --uid 10001 serve
WORKDIR /srv/ddo-serve
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY models models
COPY engines engines
COPY server server
COPY trainer trainer
COPY benchmarks benchmarks
COPY assets assets
# Inside the container every interface is the container's own. Other machines may reach a published port, so it
# starts only with API keys (DDO_ACCESS__KEYS=/run/secrets/keys.toml), or with DDO_ACCESS__OPEN=true where the
# port is published on loopback or behind a proxy that checks callers.
ENV DDO_HOST=0.0.0.0 DDO_REGISTRY=/srv/registry DDO_JOBS__DIRECTORY=/srv/state DDO_ENGINE__CACHE=/srv/cache
RUN mkdir /srv/registry /srv/state /srv/cache && chown serve /srv/registry /srv/state /srv/cache
VOLUME ["/srv/registry", "/srv/state", "/srv/cache"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "server"]

FROM base AS nvidia
# hadolint ignore=DL3013
RUN pip install '.[sd-vae]'
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility DDO_ENGINE__DEVICE=cuda
USER 10001

FROM base AS cpu
ARG PIP_EXTRA_INDEX_URL=""
# hadolint ignore=DL3013
RUN pip install .
USER 10001
