"""The service's database: what came in, what was labelled, which jobs ran, who did what."""
