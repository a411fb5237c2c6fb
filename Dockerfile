# entryfuzz as an image: every role of docker-compose.yml is this one image with another command.
#
#   docker build --tag entryfuzz:local .
#
# Arguments:
#   PYTHON_IMAGE  the base: python3 from 3.11 to 3.13 with venv, on Debian (deploy/local-images makes one without a registry)
#   EXTRAS        which extras of pyproject.toml go in, separated by commas
#   WITH_ENGINES  yes: the packages qemu-system-x86 and bochs too, for the cores of those names
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG EXTRAS=postgres
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all: PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
RUN python3 -m venv /opt/entryfuzz

# The libraries change seldom and the sources often: they are layers of their own.
COPY pyproject.toml constraints.txt deploy/requirements.py ./
RUN python3 requirements.py "${EXTRAS}" > requirements.txt \
 && /opt/entryfuzz/bin/pip install --quiet --requirement requirements.txt

COPY . ./
RUN /opt/entryfuzz/bin/pip install --quiet --no-build-isolation --no-deps . \
 && /opt/entryfuzz/bin/pip uninstall --quiet --yes setuptools pip \
 && cp deploy/alive.py /opt/entryfuzz/


FROM ${PYTHON_IMAGE}
ARG WITH_ENGINES=no
RUN case "${WITH_ENGINES}" in \
      no) ;; \
      yes) apt-get update --quiet \
        && DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends qemu-system-x86 bochs \
        && apt-get clean && rm -rf /var/lib/apt/lists/* ;; \
      *) echo "WITH_ENGINES: '${WITH_ENGINES}' is neither yes nor no" >&2; exit 1 ;; \
    esac \
 && groupadd --gid 10001 entryfuzz \
 && useradd --uid 10001 --gid entryfuzz --no-create-home --home-dir /tmp --shell /usr/sbin/nologin entryfuzz \
 && install --directory --owner entryfuzz --group entryfuzz --mode 0700 /var/spool/entryfuzz

# Nothing is written beside the code, so that the root file system can be read-only.
ENV PATH=/opt/entryfuzz/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ENTRYFUZZ_SPOOL=/var/spool/entryfuzz
WORKDIR /tmp
USER entryfuzz
ENTRYPOINT ["entryfuzz"]
CMD ["--help"]

# Last, because it is all that changes.
COPY --from=build /opt/entryfuzz /opt/entryfuzz
