"""Search in one's own photos: an index of a gallery, and everything that asks it.

Everything but the encoders is plain NumPy, so that a served search runs without torch.
"""
