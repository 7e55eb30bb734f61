"""One thread for linear algebra, in every process that computes a record. A leaf: read before anything is imported.

How many threads share a matrix product decides its last bits, and with them the record, which is to be the same on any
number of cores, alone or among many streams. And N processes of one thread use N cores, not N².
"""

from __future__ import annotations

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Variables that the libraries under NumPy (and under embedders) read when they are loaded."""
