"""How well the signals separate a healthy stream of text from a broken one (docs/evaluation.md)."""
