# nightscore with Airflow, for the stack on your own servers, Kubernetes and Cloud Composer's tests.
#
#   docker build --tag nightscore:0.1.0 .                                   Airflow and nightscore (target `airflow`)
#   docker build --tag nightscore-local:0.1.0 --target local-servers .      the local BigQuery and storage servers
#
# Base images are pinned by digest. For another one, look its digest up and pass it, or change it here:
#   docker buildx imagetools inspect python:3.11-slim-bookworm --format '{{.Manifest.Digest}}'
#   docker build --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:… .
ARG PYTHON_IMAGE=python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
ARG LOCAL_PYTHON_IMAGE=python:3.13.14-slim-bookworm@sha256:67a1e1f215ccda113cfc024e8639049257e88f273898f595b61476d128d387e8


FROM ${PYTHON_IMAGE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /build
# Before the code, so that a change of it does not install three hundred packages again.
COPY requirements.txt build-requirements.txt pyproject.toml ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv --python /usr/local/bin/python3.11 /opt/airflow/venv \
    && uv pip install --python /opt/airflow/venv --constraint requirements.txt --requirement pyproject.toml \
       --extra stack --extra onnx --extra lightgbm --extra xgboost --extra mlflow --extra vertex --extra signing
COPY README.md ./
COPY include include
RUN --mount=type=cache,target=/root/.cache/uv \
    uv build --wheel --build-constraints build-requirements.txt --out-dir dist . \
    && uv pip install --python /opt/airflow/venv --no-deps dist/nightscore-*.whl


FROM ${LOCAL_PYTHON_IMAGE} AS local-build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /build
COPY include/nightscore/local/bigquery_server/requirements.txt bigquery-server.txt
COPY requirements.txt ./
# --no-deps: the set is complete, and local-bigquery's own bound on duckdb would refuse it. The storage server needs
# nothing but checksums beside Python.
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv --python /usr/local/bin/python3.13 /opt/local/venv \
    && uv pip install --python /opt/local/venv --no-deps --requirement bigquery-server.txt \
    && uv pip install --python /opt/local/venv --constraint requirements.txt google-crc32c
COPY --from=build /build/dist dist
RUN uv pip install --python /opt/local/venv --no-deps dist/nightscore-*.whl


FROM ${LOCAL_PYTHON_IMAGE} AS local-servers
RUN rm -rf /usr/local/lib/python3.13/site-packages/pip* /usr/local/lib/python3.13/ensurepip /usr/local/bin/pip* \
    && useradd --uid 50000 --gid 0 --home-dir /opt/local --no-create-home nightscore \
    && install -d -o 50000 -g 0 -m 770 /opt/local /opt/local/data
COPY --from=local-build /opt/local/venv /opt/local/venv
# DuckDB keeps its extensions in the home directory.
ENV HOME=/opt/local \
    PATH=/opt/local/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/local/venv/lib/python3.13/site-packages/nightscore/local \
    PYTHONUNBUFFERED=1
WORKDIR /opt/local
USER 50000:0
EXPOSE 9050 9060 4443
VOLUME /opt/local/data
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9050/bigquery/v2/projects', timeout=4)"]
CMD ["python", "-P", "-m", "bigquery_server", "--project", "local", "--host", "0.0.0.0", "--port", "9050", "--grpc-port", "9060", "--data-dir", "/opt/local/data"]


FROM ${PYTHON_IMAGE} AS airflow
# libgomp1 is OpenMP, which LightGBM and XGBoost are linked to. Its version is the base image's distribution's.
# User and group are those that Airflow's Helm chart gives its pods.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && rm -rf /usr/local/lib/python3.11/site-packages/pip* /usr/local/lib/python3.11/site-packages/setuptools* \
       /usr/local/lib/python3.11/site-packages/wheel* /usr/local/lib/python3.11/ensurepip /usr/local/bin/pip* \
    && useradd --uid 50000 --gid 0 --home-dir /opt/airflow --no-create-home airflow \
    && install -d -o 50000 -g 0 -m 770 /opt/airflow /opt/airflow/logs
COPY --from=build /opt/airflow/venv /opt/airflow/venv
COPY dags /opt/airflow/dags
ENV AIRFLOW_HOME=/opt/airflow \
    NIGHTSCORE_HOME=/opt/airflow \
    HOME=/opt/airflow \
    PATH=/opt/airflow/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    GX_ANALYTICS_ENABLED=false
WORKDIR /opt/airflow
USER 50000:0
EXPOSE 8080
# Of the image's own command; docker-compose.yaml and Kubernetes have one for each service.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=4 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/api/v2/version', timeout=5)"]
CMD ["airflow", "api-server"]
