"""Generator of ``docs/reference``: the pages that say what the code says.

``make reference`` writes them, and a test compares them with the code.
"""
