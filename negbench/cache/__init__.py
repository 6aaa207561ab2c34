"""What lies in the cache: its size, whether it is whole, and what nobody needs any more."""

from __future__ import annotations
