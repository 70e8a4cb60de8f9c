"""GoHighLevel: contacts, opportunities, messages, appointments, notes, tasks and tags of a location.

objects     what our objects and fields are called there, where each is read and written
faults      what its errors mean, what its headers say of its limit
fields      custom fields: their ids, keys and types
facts       the same for people who write against them
asking      one request: within the limit, with the version that its part of the API wants
searching   a query as the vendor's filters
reading     pages of each object                writing    insert, update, upsert, delete
doubt       what became of a write of which no answer came
connector   all of it, as the platform uses it  oauth      tokens
"""

from circuit_script.connectors.gohighlevel.connector import GoHighLevel, connect, make
from circuit_script.connectors.gohighlevel.faults import BASE_URL as URL

__all__ = ["URL", "GoHighLevel", "connect", "make"]
