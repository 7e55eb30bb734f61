# The backend's image. Build it from the root of the repository:
#   docker build --file compose/backend.Dockerfile --tag pcs-backend:0.1.0 .
# The base is named by tag: its digest could not be looked up where this was written. Pin it with
#   --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/pcs
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY core core
COPY backend backend
COPY agent agent
RUN python -m pip --python /opt/pcs/bin/python install --no-cache-dir --disable-pip-version-check \
    --constraint constraints.txt '.[backend,otel]'

FROM ${PYTHON_IMAGE}
# Neither compilers nor an installer: what runs here is what was built above.
RUN python -m pip uninstall --quiet --yes pip setuptools wheel \
    && groupadd --gid 10001 pcs \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin pcs \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=build /opt/pcs /opt/pcs
ENV PATH=/opt/pcs/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DATA_DIR=/data
WORKDIR /data
USER 10001:10001
# The log must outlive its container. Nothing else is written, so the root may be read-only.
VOLUME ["/data"]
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=120s CMD ["python", "-m", "pcs_backend.probe"]
ENTRYPOINT ["pcs-backend"]
CMD ["serve"]
