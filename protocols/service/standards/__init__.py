"""What clients speak that nobody here wrote: Open Inference Protocol, Prometheus, Label Studio."""
