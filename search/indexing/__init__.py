"""Indexing: folders and object stores to vectors and texts in the standalone source, by way of the service's own
``/predict``.

``places`` lists and reads files, ``plan`` says which of them need work, ``load`` makes of a file the picture that is
sent, ``predict`` sends it, ``run`` does all of it for many at once, and ``gone`` removes what is no longer there.
"""
