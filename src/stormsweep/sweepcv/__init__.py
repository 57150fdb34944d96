"""Searches over the parameters of scikit-learn estimators, on workers, and gone on with."""
