"""Indexing: folders and object stores to vectors and texts in the standalone source, by way of the service's own
``/predict``, or by models in processes of a Ray cluster.

``places`` lists and reads files, ``plan`` says which of them need work, ``file_contents`` makes of a file the picture
that is sent, ``predictor`` sends it, ``worker`` does one file, ``run`` many at once, and ``removal`` removes what is
gone. ``cluster`` and ``ray_actors`` do files elsewhere, by the models of ``local``.
"""
