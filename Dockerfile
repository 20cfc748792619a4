# Two images from one file, both without build tools, for any user, and with nothing to write but
# /data and /tmp:
#
#   docker build --target api    -t task2vec-api .       answers requests; no torch in it
#   docker build --target worker -t task2vec-worker .    embeds and fine-tunes; also serves on its own
#
# On x86 the worker gets PyPI's torch, which brings CUDA. For machines without a GPU name PyTorch's
# index of processor builds, which are a tenth of the size:
#
#   docker build --target worker --build-arg TORCH_INDEX=URL -t task2vec-worker:cpu .
#
# A release names its base image by digest: --build-arg BASE=python:3.11.14-slim-bookworm@sha256:...

ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/task2vec
# What is installed changes more rarely than the code: its layer comes first.
COPY pyproject.toml constraints.txt README.md ./
RUN mkdir -p app models migrations task2vec && printf '__version__ = "0"\n' > app/__init__.py

FROM build AS build-api
RUN /opt/task2vec/bin/pip install --quiet -c constraints.txt ".[postgresql,s3,otel]"
COPY app app
COPY models models
COPY migrations migrations
COPY task2vec task2vec
RUN /opt/task2vec/bin/pip install --quiet --no-deps --force-reinstall . \
 && /opt/task2vec/bin/pip uninstall --quiet --yes pip setuptools

FROM build AS build-worker
ARG TORCH_INDEX=
RUN PIP_EXTRA_INDEX_URL=${TORCH_INDEX} \
    /opt/task2vec/bin/pip install --quiet -c constraints.txt ".[worker,probes,postgresql,s3,otel]"
COPY app app
COPY models models
COPY migrations migrations
COPY task2vec task2vec
RUN /opt/task2vec/bin/pip install --quiet --no-deps --force-reinstall . \
 && /opt/task2vec/bin/pip uninstall --quiet --yes pip

FROM ${BASE} AS runtime
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Task2Vec" \
      org.opencontainers.image.description="Which pretrained image model to fine-tune on a small labelled set" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
RUN groupadd --gid 10001 task2vec \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data task2vec \
 && install -d -o task2vec -g task2vec /data
ENV PATH=/opt/task2vec/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data \
    TASK2VEC_DATA_DIR=/data \
    TASK2VEC_HOST=0.0.0.0 \
    TASK2VEC_PORT=8000
USER 10001:10001
WORKDIR /data
# Uploads pass through /tmp: give it the room of the largest ones, on a disk rather than in memory.
VOLUME ["/data", "/tmp"]
ENTRYPOINT ["task2vec"]

FROM runtime AS api
COPY --from=build-api /opt/task2vec /opt/task2vec
EXPOSE 8000
# An address that other machines reach asks for keys: `keys create NAME` comes before the first start.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"TASK2VEC_PORT\"]}/healthz', timeout=4)"]
CMD ["serve", "--no-worker"]

# Last, and so what is built where no target is named: with `serve` it is the whole service.
FROM runtime AS worker
COPY --from=build-worker /opt/task2vec /opt/task2vec
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=300s CMD ["python", "-m", "app.jobs.alive"]
CMD ["worker"]
