"""The page on which people label what nobody matched, a group at a time."""
