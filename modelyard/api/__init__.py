"""The command's nouns in Python: a namespace of verbs for each, and the client that has them."""
