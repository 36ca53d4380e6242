"""rkvisord: pure deciders, and the shells that act for them."""
