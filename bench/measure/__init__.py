"""The measurements of ``make bench``: one module each, and what they share."""
