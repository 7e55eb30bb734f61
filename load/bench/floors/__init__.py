"""What the libraries alone cost: none of the project's code, but the texts of statements that a store is asked with."""
