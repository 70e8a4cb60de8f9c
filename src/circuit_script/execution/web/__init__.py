"""Endpoints in the child: FastAPI routes of ``@endpoint``, and the author's own WSGI or ASGI app."""
