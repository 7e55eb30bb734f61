"""`python -m pcs_backend` is `pcs-backend`."""

from pcs_backend.cli import main

if __name__ == "__main__":
    main()
