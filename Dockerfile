# clusterguard as a container image: what `clusterguard run` needs, and no compiler, package index or cache beside it.
#
#   docker build --tag clusterguard .
#   docker build --build-arg BASE=registry.example.com/debian:bookworm --tag clusterguard .
#   docker run --rm --entrypoint cat clusterguard /usr/share/clusterguard/sbom.cdx.json
#
# BASE is any image of the Debian family; one without Python gets Debian's own (3.11 or newer). BUILDER is the one that
# packages are fetched and installed in, of the same release: by default the same image; one of your own where builds
# reach package indexes through a proxy with a certificate authority of its own, which then never gets into the result.
# Nothing here needs BuildKit, so that every builder of images will do.

ARG BASE=debian:bookworm-slim
ARG BUILDER=${BASE}

# ---- everything that needs pip ----
FROM ${BUILDER} AS builder
# For this stage alone; the proxy variables (HTTPS_PROXY …) are known to every builder, and stay out of images as well.
ARG PIP_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=:all: PYTHONDONTWRITEBYTECODE=1
RUN python3 -c 'import ensurepip, venv' 2>/dev/null \
    || { apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv ca-certificates; }
RUN python3 -m venv /build/tools && /build/tools/bin/pip install 'build==1.3.0' 'cyclonedx-bom==7.1.0' \
    && python3 -m venv /opt/clusterguard
WORKDIR /build/source
COPY pyproject.toml README.md LICENSE requirements.lock ./
COPY src src
COPY tools/locked.py tools/locked.py
# Exactly the releases of the lock, each with its digest, and of them only what the program itself needs.
RUN /build/tools/bin/python -m build --wheel --outdir /build/wheel . \
    && /opt/clusterguard/bin/pip install --dry-run --quiet --report /build/report.json \
        "$(echo /build/wheel/clusterguard-*.whl)[policy]" \
    && python3 tools/locked.py requirements.lock /build/report.json > /build/locked.txt \
    && /opt/clusterguard/bin/pip install --no-deps --require-hashes --requirement /build/locked.txt \
    && /opt/clusterguard/bin/pip install --no-deps /build/wheel/clusterguard-*.whl
# Nothing that could install more; then the bill of materials (CycloneDX) of what is left. The kubernetes package has its
# whole API twice; the asynchronous half is a fifth of everything, and nothing imports it.
RUN /opt/clusterguard/bin/pip check \
    && /opt/clusterguard/bin/pip uninstall --yes --quiet setuptools pip \
    && rm -rf /opt/clusterguard/lib/python3.*/site-packages/kubernetes/aio \
    && /build/tools/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
        --output-file /build/sbom.cdx.json /opt/clusterguard/bin/python \
    && PYTHONDONTWRITEBYTECODE= /opt/clusterguard/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/clusterguard/lib

# ---- what is shipped ----
FROM ${BASE}
LABEL org.opencontainers.image.title="clusterguard" \
      org.opencontainers.image.description="Backs up Kubernetes clusters, and proves that the backups restore." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN command -v python3 >/dev/null && test -e /etc/ssl/certs/ca-certificates.crt \
    || { apt-get update && apt-get install --yes --no-install-recommends python3 ca-certificates \
         && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log; }
COPY --from=builder /opt/clusterguard /opt/clusterguard
COPY --from=builder /build/sbom.cdx.json /usr/share/clusterguard/sbom.cdx.json
# The user is a number, which Kubernetes can tell from root by itself (runAsNonRoot). Whatever is written goes to
# /tmp and to the home folder: mount a volume on each, and the rest of the file system may be read-only.
ENV PATH=/opt/clusterguard/bin:$PATH HOME=/home/clusterguard TMPDIR=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN mkdir --mode=0700 /home/clusterguard && chown 65532:65532 /home/clusterguard
USER 65532:65532
WORKDIR /home/clusterguard
# As Ctrl-C: a run that is ended gives its lock back. Of SIGTERM the first process of a container would hear nothing.
STOPSIGNAL SIGINT
ENTRYPOINT ["clusterguard"]
CMD ["--help"]
