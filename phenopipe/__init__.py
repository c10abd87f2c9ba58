"""The library behind the rules: one package per stage, one ground floor below them."""

__version__ = "0.1.0"
