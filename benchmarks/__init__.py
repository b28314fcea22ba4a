"""Measured comparisons, each beside its rival in one run on one thread: ``python -m benchmarks``."""

import os

# Before numpy or torch is imported: they read these once.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
