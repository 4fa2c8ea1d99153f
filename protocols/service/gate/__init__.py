"""Who may come in: keys, sessions of browsers, where requests come from, and how many a key may send."""
