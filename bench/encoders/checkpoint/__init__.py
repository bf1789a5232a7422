"""Anybody's weights as a timm model: a file is read, its layout recognized, its names translated.

`load.load` does all of it. A new layout is one entry of `layouts.LAYOUTS`.
"""
