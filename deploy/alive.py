"""Whether the worker of this container has told the database in the last two minutes that it lives; exit 1 if not.

For Docker's health check, every half minute in every container: it loads the driver only, a tenth of what the command line costs.
"""

import os
import socket
import sys

import psycopg

ALIVE = "SELECT max(seen_at) > now() - interval '2 minutes' FROM worker WHERE name LIKE %s"

with psycopg.connect(os.environ["ENTRYFUZZ_DB"], connect_timeout=5) as connection:
    row = connection.execute(ALIVE, [f"{socket.gethostname()}-%"]).fetchone()
if not row or not row[0]:
    sys.exit("the worker has not been heard of for two minutes")
