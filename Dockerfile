# Two stages: wheels are built and installed in the first, the second carries no compiler, no pip
# cache and no root.
FROM python:3.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
COPY requirements.txt .
RUN /opt/venv/bin/pip install -r requirements.txt

FROM python:3.13-slim-bookworm
RUN groupadd --system --gid 10001 docyard \
    && useradd --system --uid 10001 --gid docyard --home-dir /app --no-create-home docyard
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY app ./app
COPY worker ./worker
COPY models ./models
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
RUN python -m compileall -q app worker models
USER docyard
EXPOSE 8000
# The same image is web, worker and migration; the process of each stands in docker-compose.yml.
CMD ["python", "-m", "app", "serve", "--host", "0.0.0.0"]
