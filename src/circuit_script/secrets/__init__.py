"""Vendors' tokens and keys: where they lie, how they are sealed, and who may read them. No child comes here.

places      what a place of secrets is; the environment
table       sealed, in the app's database      aws, vault   in a store elsewhere
cipher      AES-256-GCM, each value bound to its row      keys   where the key comes from
kept        `KeptSecrets`: a tenant's own before everybody's, remembered
hosts       where a handler may have a secret sent
rotation    another key for everything that is sealed
"""

from circuit_script.secrets.kept import KeptSecrets, Secrets
from circuit_script.secrets.keys import Keys
from circuit_script.secrets.opened import open_secrets

__all__ = ["KeptSecrets", "Keys", "Secrets", "open_secrets"]
