"""The lease protocol, as three Lua scripts over a block key and a lease key.

A lease is a random token of 8 bytes with a short life. Who holds it may fill, while it stands; a
writer's invalidation deletes block and lease together, so a value read before the write can never
be filled after it.

Who misses but finds another's lease reads the store and does not fill. What it saw may be newer
than what the holder will fill, and a later hit would then go backwards; so it tells the lease the
digest of what it saw, and only a fill of equal bytes is taken (OBSERVE).
"""

from __future__ import annotations

import hashlib
from typing import Final

TOKEN_BYTES: Final = 8
LEASE_MS: Final = 2_000
"""Longer than any store read may take, short enough that a dead reader's key is soon filled."""


class Script:
    """A Lua script and its SHA-1, by which a node knows it once it was loaded."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = hashlib.sha1(self.text).hexdigest().encode()  # noqa: S324 - Redis names it so


TAKE_LEASES = Script("""
local answers = {}
for i = 1, #KEYS, 2 do
  local block = redis.call('GET', KEYS[i])
  if block then
    answers[#answers + 1] = block
  elseif redis.call('SET', KEYS[i + 1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = 0
  end
end
return answers
""")
"""KEYS block key and lease key in turn; ARGV token, life in ms. Per pair: the block, if one was put
meanwhile; 1 when the lease is ours; 0 when it is another's."""

FILL = Script("""
local lease = redis.call('GET', KEYS[2])
if not lease or string.sub(lease, 1, 8) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
if #lease > 8 and string.sub(lease, 9) ~= redis.sha1hex(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return ARGV[1] .. KEYS[1]
""")
"""KEYS block key, lease key; ARGV token, block, ttl in ms. Token and block key when the block was
put, so that another script's reply, or another fill's, is never taken for this one's."""

OBSERVE = Script("""
local block = redis.call('GET', KEYS[1])
if block and block ~= ARGV[1] then redis.call('DEL', KEYS[1]) end
local lease = redis.call('GET', KEYS[2])
if not lease then return 0 end
local seen = redis.sha1hex(ARGV[1])
if #lease == 8 then
  redis.call('SET', KEYS[2], lease .. seen, 'KEEPTTL')
elseif string.sub(lease, 9) ~= seen then
  redis.call('DEL', KEYS[2])
end
return 1
""")
"""KEYS block key, lease key; ARGV the block as seen in the store."""

ALL: Final = (TAKE_LEASES, FILL, OBSERVE)
