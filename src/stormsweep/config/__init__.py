"""The study file and the sites: models, defaults, errors."""
