"""Quality: how right a version's answers were, once the truth is known, and which of two versions is better.

Pure functions on NumPy arrays. Workers have no SciPy or scikit-learn; the tests compare with theirs.
"""
