"""Resend: e-mail.

faults     what its errors mean      mails    an effect as the JSON of an e-mail
connector  sending, alone and in batches, and what became of an e-mail of which no answer came
"""

from circuit_script.connectors.resend.connector import URL, Resend, make

__all__ = ["URL", "Resend", "make"]
