"""Endpoints on the trusted side: a request in, one governed execution, one commit, an answer out."""
