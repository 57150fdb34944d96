"""Space, strategies and plan: pure, no files, no Keras, no Dask."""
