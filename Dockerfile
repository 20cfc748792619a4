# One node: API, supervised worker, SQLite and blobs under /data.
#
#   docker build -t task2vec .
#   docker build -t task2vec-api --build-arg EXTRAS= .     (then: docker run ... serve --no-worker)
#
# The second has no torch: it answers from the database, and a worker beside it embeds.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=worker
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/task2vec
WORKDIR /src
# What is installed changes more rarely than the code: its layer comes first.
COPY pyproject.toml constraints.txt README.md ./
RUN mkdir -p app models migrations \
 && printf '__version__ = "0"\n' > app/__init__.py \
 && /opt/task2vec/bin/pip install --quiet -c constraints.txt ".${EXTRAS:+[$EXTRAS]}"
COPY app app
COPY models models
COPY migrations migrations
RUN /opt/task2vec/bin/pip install --quiet --no-deps --force-reinstall .

FROM python:${PYTHON}-slim
RUN useradd --uid 10001 --create-home task2vec \
 && install -d -o task2vec -g task2vec /data
COPY --from=build /opt/task2vec /opt/task2vec
ENV PATH=/opt/task2vec/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TASK2VEC_DATA_DIR=/data \
    TASK2VEC_HOST=0.0.0.0 \
    TASK2VEC_PORT=8000
USER task2vec
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"TASK2VEC_PORT\"]}/healthz', timeout=4)"]
# An address that other machines reach asks for keys: `keys create NAME` comes before the first start.
ENTRYPOINT ["task2vec"]
CMD ["serve"]
