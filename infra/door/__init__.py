"""Access control of a stack's servers.

``credential`` is the owner's secret, ``sessions`` the cookies and one-time login tokens derived
from it, ``origin`` the rules for Host, Origin and Sec-Fetch headers, ``peer`` the user at the
other end of a connection, ``door`` the ASGI application in front of a server, ``prefect`` what
Prefect's server needs behind it, and ``guard`` puts them together for a part of the stack.
"""
