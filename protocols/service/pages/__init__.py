"""The pages of a running service: made on the server, complete without scripts, quicker with them."""
