"""The demo of search: sample pictures, a service of its own, five searches. See ``tools.demo.__main__``."""
