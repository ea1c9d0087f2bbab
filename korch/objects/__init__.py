"""The only writer of objects."""
