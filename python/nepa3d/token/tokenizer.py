"""``nepa3d.samples.tokenizer`` under the name that the track document uses."""

from nepa3d.samples.tokenizer import layout, tokenize

__all__ = ["layout", "tokenize"]
