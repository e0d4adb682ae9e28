"""From a dataset URI to a listing of rows and their bytes: sources, formats, splits, the sampler, the cache."""
