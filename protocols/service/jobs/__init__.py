"""Work that takes longer than a request, and everything that makes a new generation, in processes of its own."""
