"""``make demo``: the whole of search on sample pictures, with nothing but what pip installs. See ``demo.__main__``."""
