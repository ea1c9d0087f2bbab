"""How long tests look for what nobody thought of: KORCH_FUZZ=10 makes so many times the requests (`make fuzz`)."""

import os

TIMES = int(os.environ.get("KORCH_FUZZ", "1"))
