# A machine for GPUs: CUDA's libraries come with torch's own wheel, so the driver of the host is all that is needed.
#   docker build -t prefsweep . && docker run --gpus all -v $PWD/outputs:/prefsweep/outputs prefsweep method=dpo
FROM python:3.12-slim

RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /prefsweep
COPY requirements.lock ./
RUN pip install --no-cache-dir torch==$(sed -n 's/^torch==//p' requirements.lock) \
    && pip install --no-cache-dir --no-deps -r requirements.lock
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e .
ENTRYPOINT ["prefsweep"]
