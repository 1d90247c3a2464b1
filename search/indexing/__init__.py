"""Indexing: folders and object stores to vectors and texts in the standalone source, by way of the service's own
``/predict``.

``places`` lists and reads files, ``plan`` says which of them need work, ``file_contents`` makes of a file the picture
that is sent, ``predictor`` sends it, ``run`` does all of it for many at once, and ``removal`` removes what is gone.
"""
