# What Dockerfile needs of the official python image: python3 with venv.
ARG BASE
FROM ${BASE}
RUN apt-get update --quiet \
 && apt-get install --quiet --yes --no-install-recommends python3 python3-venv \
 && apt-get clean && rm -rf /var/lib/apt/lists/*
# pip trusts whom this system trusts, so that a site's own certificates count.
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
CMD ["python3"]
