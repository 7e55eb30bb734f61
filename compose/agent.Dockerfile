# The agent's image. Build it from the root of the repository:
#   docker build --file compose/agent.Dockerfile --tag pcs-agent:0.1.0 .
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
    --constraint constraints.txt '.[agent]'

FROM ${PYTHON_IMAGE}
# Neither compilers nor an installer: what runs here is what was built above.
RUN python -m pip uninstall --quiet --yes pip setuptools wheel \
    && groupadd --gid 10001 pcs \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin pcs \
    && install --directory --owner=10001 --group=10001 --mode=0700 /outbox
COPY --from=build /opt/pcs /opt/pcs
ENV PATH=/opt/pcs/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OUTBOX_DIR=/outbox
WORKDIR /outbox
USER 10001:10001
# The outbox must outlive its container. Nothing else is written, so the root may be read-only.
VOLUME ["/outbox"]
ENTRYPOINT ["pcs-agent"]
CMD ["--help"]
