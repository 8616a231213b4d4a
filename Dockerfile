# The page in a container:
#   docker build -t immersivedepth . && docker run -p 7860:7860 immersivedepth
# With CUDA (needs the NVIDIA container toolkit):
#   docker build --build-arg TORCH=cuda -t immersivedepth:cuda . && docker run --gpus all -p 7860:7860 immersivedepth:cuda
FROM python:3.11-slim
ARG TORCH=cpu
RUN useradd --create-home user
WORKDIR /home/user/immersivedepth
# The CUDA build of torch on PyPI brings its own CUDA libraries; the other one is a tenth of the size.
RUN if [ "$TORCH" = cpu ]; then \
      pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu; \
    else \
      pip install --no-cache-dir torch torchvision; \
    fi
COPY . .
RUN pip install --no-cache-dir .
USER user
WORKDIR /home/user
EXPOSE 7860
CMD ["immersivedepth", "mode=demo", "app.host=0.0.0.0"]
