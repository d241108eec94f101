"""A project on disk: its configuration, its programs, and what it is made from."""
