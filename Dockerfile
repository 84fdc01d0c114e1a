# One image for the four processors: a wheel built in the first stage, installed without build tools in the second.
FROM python:3.12.8-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY driftline ./driftline
# The dependencies' wheels too, so that the second stage needs no index.
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:3.12.8-slim-bookworm
# The wheels are mounted for this step, not copied: they would double the image.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels driftline \
    && useradd --uid 10001 --create-home --home-dir /var/lib/driftline driftline
# numba keeps compiled kernels here; site-packages is not writable for this user.
ENV NUMBA_CACHE_DIR=/var/lib/driftline/numba \
    PROMETHEUS_DISABLE_CREATED_SERIES=true \
    PYTHONUNBUFFERED=1 \
    DRIFTLINE_HTTP_PORT=9464
USER driftline
WORKDIR /var/lib/driftline
# Half a minute of compiling is paid here, not by the first container's first rows.
RUN python -m driftline.detectors.compile
# A loop that stands still is unhealthy; waiting for partitions is not, hence /livez and not /readyz.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['DRIFTLINE_HTTP_PORT'] + '/livez', timeout=4)"]
ENTRYPOINT ["driftline"]
CMD ["--help"]
