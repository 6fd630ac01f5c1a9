"""Kinds of tokenizers: how each says which bytes its ids stand for, and how a source of any of them is loaded."""
