"""What is measured, and on what: data, fits, evaluations, reports."""
