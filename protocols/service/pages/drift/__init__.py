"""The page of drift, and what its charts are made of."""
