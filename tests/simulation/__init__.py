"""Agent, network, disk, clock, store and service driven by one seed in virtual time, faults among them, and a checker.

==========================================  ===================================================================
`world`, `scenario`, `faults`, `damage`     one run: what it is made of, what its seed decides, what goes wrong
`agent`, `backend`, `client`, `records`     the shipped agent and service on their machines, and who uses them
`machine`, `loop`, `network`, `http`        processes, virtual time and byte streams
`disk`, `system`, `store`                   what keeps bytes: a page cache, system calls on it, a shared store
`model`, `logs`, `boxes`, `observers`       the checker: what was promised, and where it listens
`mutants`, `coverage`                       the proof that the checker sees faults, and that the code is run
`summary`, `trace`, `__main__`              what is said of it: `make simulate`
==========================================  ===================================================================
"""
