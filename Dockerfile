# docker build -t sfvqa .
# docker run --rm -v sfvqa-models:/models sfvqa models pull smolvlm2-500m --yes
# docker run --rm --gpus all -v "$PWD":/videos -v sfvqa-models:/models sfvqa ask my-holiday.mp4 "What happens?"
# docker run --rm --gpus all -p 127.0.0.1:8484:8484 -v sfvqa-models:/models sfvqa serve --host 0.0.0.0 --api-key my-key
# To write beside the videos, add --user "$(id -u)".
#
# PyPI's torch brings CUDA's libraries along: the host needs only its driver and NVIDIA's container toolkit.
# For a CPU alone, without those gigabytes:
# docker build -t sfvqa --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu .
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ARG PIP_EXTRA_INDEX_URL
WORKDIR /source
COPY . .
RUN python3 -m venv /opt/sfvqa && /opt/sfvqa/bin/pip install --no-cache-dir '.[serve]'

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/sfvqa /opt/sfvqa
RUN useradd --create-home sfvqa && mkdir /models /videos && chown sfvqa /models
USER sfvqa
ENV PATH=/opt/sfvqa/bin:$PATH HF_HOME=/models
VOLUME /models
WORKDIR /videos
EXPOSE 8484
ENTRYPOINT ["sfvqa"]
CMD ["--help"]
