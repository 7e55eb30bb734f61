"""`make bench`: what a record costs here, beside what the libraries alone cost on the same machine at the same time."""
