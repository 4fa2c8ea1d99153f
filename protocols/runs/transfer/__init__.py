"""The protocol *transfer*: default settings on many data sets, nobody's favourite among them."""
