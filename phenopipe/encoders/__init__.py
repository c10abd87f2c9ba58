"""Models that turn crops into embeddings, and the folders that hold them.

One file a model. An encoder is a folder (:mod:`phenopipe.encoders.folder`); random,
imported, trained and trimmed ones look alike.
"""
