"""The protocol of out-of-distribution detection, and what it is compared with."""
