"""Routes of the inbox: what comes in, what people say of it, and what they are asked."""
