#!/bin/sh
# Installs torch into the virtual environment given as $1: the CPU build where no NVIDIA driver answers, so that a CPU
# machine never pulls gigabytes of CUDA packages. $TORCH overrides the requirement (e.g. TORCH=torch for the default build).
set -eu
pip="$1/bin/python -m pip install --quiet --disable-pip-version-check"
version=2.13.0
if [ -n "${TORCH:-}" ]; then
    exec $pip "$TORCH"
fi
if [ "$(uname -s)" != Linux ] || nvidia-smi >/dev/null 2>&1; then
    exec $pip "torch==$version"
fi
# First the package sources this machine is set up with (a mirror may carry the CPU build), then PyTorch's own index.
$pip "torch==$version+cpu" 2>/dev/null || $pip --index-url https://download.pytorch.org/whl/cpu "torch==$version+cpu"
