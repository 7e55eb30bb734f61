"""Several processes that serve one port over one data folder: what starts them, and what each of them is given.

The supervisor holds the lock of the folder and makes what the workers share; each worker is a whole serving process with
a WAL folder of its own. A worker that ends, ends the service (docs/adr/0019).
"""
