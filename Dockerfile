# `llm serve` for a folder mounted at /model, without root and without a compiler.
#   docker build -t llm .
#   docker run --stop-timeout 40 -p 127.0.0.1:8000:8000 -e LLM_API_KEY=a-long-secret -v "$PWD/runs/mine:/model/mine:ro" llm run=/model/mine
FROM python:3.11-slim AS build
WORKDIR /source
RUN python -m venv /venv
# A mirror takes the place of either by --build-arg; of the second, pip knows the usual one.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG PIP_INDEX_URL
# torch first, from the index of builds without CUDA, and in a layer of its own; what it needs comes below, pinned.
COPY constraints.txt .
RUN /venv/bin/pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX_URL" \
    "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY llm llm
RUN /venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[serve]'

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 llm
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
USER llm
WORKDIR /home/llm
EXPOSE 8000
HEALTHCHECK --start-period=600s --interval=10s --timeout=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["llm", "serve", "host=0.0.0.0", "port=8000"]
