"""What does an encoder see in every well, at every block?

In: images, an encoder folder. Out: ``embed/{screen}/{encoder}/{experiment}.zarr``; folders
of encoders that are not trained here. Paper 3.2, 4.
"""
