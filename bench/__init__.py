"""How far is each self-supervised way of pretraining from ImageNet labels, and how sure are we."""

from importlib.metadata import version

__version__ = version("ssl-gap")
